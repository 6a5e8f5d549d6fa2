"""Benchmarks: `python -m benchmarks.NAME --help`. Ways to do the same are compared in one process."""
