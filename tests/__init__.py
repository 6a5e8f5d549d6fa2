"""The tests; this is imported before anything else of theirs."""

import gc

# Importing and tracing make millions of objects that stay. Looking through them again and again took 7% of the time.
gc.set_threshold(200_000, 20, 100)
