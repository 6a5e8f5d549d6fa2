"""The command `python -m vpns_jax.data`; see `prepare.py`."""

import sys

from vpns_jax.data.prepare import main
from vpns_jax.output import until_closed

sys.exit(until_closed(lambda: main(sys.argv[1:])))
