"""See `commands`."""

import sys

from vpns_jax.commands import main

sys.exit(main())
