"""See :mod:`benchmarks.cold_warm.command`."""

from benchmarks import measure
from benchmarks.cold_warm.command import main

measure.script(main)
