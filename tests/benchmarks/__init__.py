"""Tests of the benchmarks themselves: what they run, count and print, not how fast."""
