"""See :mod:`benchmarks.peers.old`."""

from benchmarks import measure
from benchmarks.peers.old import main

measure.script(main)
