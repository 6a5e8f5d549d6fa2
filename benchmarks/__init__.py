"""What things cost, beside other ways to do them, in the same process: `python -m benchmarks.NAME --help`."""
