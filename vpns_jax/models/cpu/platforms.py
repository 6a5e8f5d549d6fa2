"""The kind of device that a program is traced for."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_assumed: contextvars.ContextVar[str | None] = contextvars.ContextVar("assumed", default=None)


@contextlib.contextmanager
def assumed(platform: str) -> Iterator[None]:
    """Lets `traced_for` say a platform, for programs that are only traced and looked at.

    `jax.jit` does not know of it, and keeps its traces: a function under a `jit` of its own inside the program is
    traced once, for this platform or without it, and later traces with the same shapes repeat that. This package's
    own calls of `jit` ask for the platform before.

    Args:
      platform: the platform, such as "tpu", which need not be there.

    Yields:
      Nothing.
    """
    token = _assumed.set(platform)
    try:
        yield
    finally:
        _assumed.reset(token)


def traced_for() -> str:
    """Finds the platform that a program is traced for.

    It is that of the mesh in force (`jax.set_mesh`), or else that of JAX's default device or backend.

    `lax.platform_dependent` is no alternative: it decides later, when a program is lowered, so every trace would hold
    all ways to compute a convolution. That costs a second or two for each convolution of a network.

    Returns:
      The platform, such as "cpu"; within `assumed`, the one given there.
    """
    if platform := _assumed.get():
        return platform
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.default_device.value
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform
