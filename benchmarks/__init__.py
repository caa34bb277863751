"""
Benchmarks: scripts that print the tables of the README, for anyone to repeat.

Run from the repository's root: ``python -m benchmarks.peers --help`` and the like.
"""
