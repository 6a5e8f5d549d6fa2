"""Benchmarks. Each compares several ways to do the same in one process: `python -m benchmarks.NAME --help`."""
