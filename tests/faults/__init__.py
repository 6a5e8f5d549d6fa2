"""Bad input made at random, and a count of what becomes of it: `python -m tests.faults`."""
