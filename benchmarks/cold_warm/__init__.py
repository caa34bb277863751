"""
The whole start of one configuration, cold, warm, repeated, and with one requirement changed.

``python -m benchmarks.cold_warm --help``; see :mod:`benchmarks.cold_warm.command`.
"""

from benchmarks.cold_warm.picture import draw

__all__ = ["draw"]
