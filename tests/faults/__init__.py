"""Makes random bad input and counts the outcomes: `python -m tests.faults`."""
