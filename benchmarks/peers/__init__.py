"""cachepod beside the tools that one would otherwise use: ``python -m benchmarks.peers --help``."""
