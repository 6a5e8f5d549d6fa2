"""Integer keys that have the order of floats.

Floats are compared by their bits. This is exact for every input, subnormal numbers included: XLA's float comparisons
flush those to zero.
"""

import jax
import jax.numpy as jnp
from jax import lax

_SIGN = 1 << 31
_INFINITY = 0x7F800000
_NAN = 0x7FC00000
SUPPORTED = (jnp.float32.dtype, jnp.bfloat16.dtype, jnp.float16.dtype)

# Order keys lie in LOWEST <= key < END; ranks in LOWEST_RANK <= rank < END, those of magnitudes from LEAST_RANK on.
LOWEST, END = -_INFINITY, _NAN + 1
LOWEST_RANK, LEAST_RANK = LOWEST - 1, -1


def order_key(x: jax.Array) -> jax.Array:
    """int32 keys that have the order of the floats `x`; the key of -x is minus the key of x.

    Both zeros have key 0. Every NaN has the same key, above that of infinity, as in `numpy.partition`.

    Args:
      x: float32, bfloat16 or float16, any shape.

    Returns:
      int32, shaped as `x`.
    """
    rank = order_rank(x)
    return jnp.where(rank == LOWEST_RANK, jnp.int32(_NAN), rank)


def order_rank(x: jax.Array) -> jax.Array:
    """`order_key(x)`, but every NaN is the lowest: masks rank by it, and a broken score must not keep its weight."""
    magnitude = magnitude_rank(x)
    rank = jnp.where(_bits(x) < 0, -magnitude, magnitude)
    return jnp.where(magnitude == LEAST_RANK, jnp.int32(LOWEST_RANK), rank)


def magnitude_rank(x: jax.Array) -> jax.Array:
    """The order of abs(x) with every NaN the lowest, computed more cheaply: the bits of x without the sign."""
    magnitude = _bits(x) & jnp.int32(_SIGN - 1)
    return jnp.where(magnitude > _INFINITY, jnp.int32(LEAST_RANK), magnitude)


def key_to_float(key: jax.Array, dtype: jnp.dtype = jnp.float32.dtype) -> jax.Array:
    """The float whose `order_key` is `key`, which must be exact in `dtype`."""
    magnitude = lax.bitcast_convert_type(jnp.abs(key), jnp.uint32)
    bits = jnp.where(key < 0, magnitude | jnp.uint32(_SIGN), magnitude)
    if dtype == jnp.bfloat16:
        return lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16)
    return lax.bitcast_convert_type(bits, jnp.float32).astype(dtype)


def _bits(x: jax.Array) -> jax.Array:
    """The bits of x as float32, an int32."""
    if x.dtype not in SUPPORTED:
        raise TypeError(f"selection takes float32, bfloat16 or float16 arrays, found {x.dtype}")
    if x.dtype == jnp.bfloat16:
        # By the bits: a conversion may flush subnormal numbers to zero.
        return lax.bitcast_convert_type(x, jnp.int16).astype(jnp.int32) << 16
    return lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
