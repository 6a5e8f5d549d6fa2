"""The command `python -m vpns_jax.data`; see `prepare.py`."""

import sys

from vpns_jax.data.prepare import main

sys.exit(main(sys.argv[1:]))
