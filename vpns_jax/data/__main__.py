"""See `prepare.py`."""

import sys

from vpns_jax.data.prepare import main

sys.exit(main(sys.argv[1:]))
