"""Which kind of device a program is traced for."""

import jax


def traced_for() -> str:
    """ "cpu", "gpu" or "tpu": of the mesh in force (`jax.set_mesh`), else of JAX's default device or backend.

    `lax.platform_dependent` would ask later, when a program is lowered, and take all ways to compute a thing into every
    trace: for each convolution of a network that is a second or two.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.default_device.value
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform
