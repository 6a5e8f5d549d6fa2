"""Where files are kept between runs: source networks trained here, compiled programs."""

import os
from pathlib import Path


def directory() -> Path:
    """$VPNS_JAX_CACHE; without it `vpns_jax` in the user's cache folder, by the XDG convention."""
    chosen = os.environ.get("VPNS_JAX_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vpns_jax"
