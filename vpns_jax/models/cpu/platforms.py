"""The kind of device that a program is traced for."""

import jax


def traced_for() -> str:
    """The platform, such as "cpu", of the mesh in force (`jax.set_mesh`), or else of JAX's default device or backend.

    `lax.platform_dependent` is no alternative: it decides later, when a program is lowered, so every trace would hold
    all ways to compute a convolution. That costs a second or two for each convolution of a network.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.default_device.value
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform
