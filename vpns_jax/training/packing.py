"""Joins the small arrays of a checkpoint into one, because Orbax takes time for each array that it writes or reads.

Without packing, 600 arrays of 1,000 numbers and 40 of 2 MiB are written in 2.6 s and read in 2.1 s; packed, in 1.1 s
and 0.4 s (two cores, a local disk). This may go when the time that Orbax takes depends only on the number of bytes.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from vpns_jax.parallel import sharding

# An array of at most this many elements is packed with others.
_SMALL = 2**18


def pack(arrays: dict[str, Any]) -> dict[str, Any]:
    """Joins the small arrays of each dtype into one; large arrays stay as they are.

    Args:
      arrays: arrays by name.

    Returns:
      The packed arrays, by names that say what they hold.
    """
    packed: dict[str, Any] = {}
    for dtype, names in _small(arrays).items():
        together = np.concatenate([np.ravel(x) for x in sharding.to_host([arrays[name] for name in names])])
        packed[f"small_{dtype}"] = sharding.put(together, _everywhere())
    return packed | {f"large_{i}": arrays[name] for i, name in enumerate(_large(arrays))}


def packed_like(arrays: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Describes the arrays of `pack`, for reading them; large arrays go straight to their devices.

    Args:
      arrays: arrays by name, with the shapes, dtypes and devices that are wanted.

    Returns:
      Shapes, dtypes and shardings by the names of `pack`.
    """
    target = {}
    for dtype, names in _small(arrays).items():
        shape = (sum(arrays[name].size for name in names),)
        target[f"small_{dtype}"] = jax.ShapeDtypeStruct(shape, arrays[names[0]].dtype, sharding=_everywhere())
    for i, name in enumerate(_large(arrays)):
        x = arrays[name]
        target[f"large_{i}"] = jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    return target


def layout(packed: dict[str, Any]) -> dict[str, str]:
    """Describes packed arrays for JSON.

    Args:
      packed: the result of `pack` or `packed_like`.

    Returns:
      Dtype and shape of each array, such as "float32[3, 4]", by name.
    """
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in packed.items()}


def unpack(packed: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """Inverts `pack`.

    Args:
      packed: the packed arrays.
      like: arrays by name, with the shapes, dtypes and devices that are wanted.

    Returns:
      The arrays by name.
    """
    arrays = {name: packed[f"large_{i}"] for i, name in enumerate(_large(like))}
    for dtype, names in _small(like).items():
        ends = np.cumsum([like[name].size for name in names])
        parts = np.split(np.asarray(packed[f"small_{dtype}"]), ends[:-1])
        arrays |= {name: part.reshape(like[name].shape) for name, part in zip(names, parts, strict=True)}
    return {name: sharding.put(arrays[name], like[name].sharding) for name in like}


def _everywhere() -> jax.sharding.Sharding:
    """The place of packed arrays: a device of this process or, if there are several processes, all devices."""
    if jax.process_count() == 1:
        return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return NamedSharding(jax.sharding.get_mesh(), sharding.REPLICATED)


def _small(arrays: dict[str, Any]) -> dict[str, list[str]]:
    """Names of the small arrays by dtype."""
    groups: dict[str, list[str]] = {}
    for name, x in arrays.items():
        if x.size <= _SMALL:
            groups.setdefault(str(x.dtype), []).append(name)
    return groups


def _large(arrays: dict[str, Any]) -> list[str]:
    return [name for name, x in arrays.items() if x.size > _SMALL]
