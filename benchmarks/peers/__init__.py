"""cachepod beside the tools that one would otherwise use: ``python -m benchmarks.peers --help``."""

from benchmarks.peers.tables import draw

__all__ = ["draw"]
