"""One pass over many arrays: how many of their elements lie below each of several pivots.

Each device counts its own shards, and only the counts are summed over the devices. There are three ways to write
this, and each is the fast one on one platform:

- `count_together`: one reduction of several operands. It is the only form for which XLA for CPUs reads an array once.
- `count_rows`: a reduction over rows for each pivot; then one reduction over the rows of all arrays. XLA for GPUs
  fuses the row reductions of an array's pivots into one kernel. For reductions over the whole array it would make
  eight. Starting a kernel takes longer than reading a small array, so all small arrays are counted as one.
- `count_apart`: a reduction for each pivot. XLA for TPUs fuses them and partitions them well. TPUs do not support
  custom partitioning rules (https://github.com/jax-ml/jax/issues/38196).

Without a rule, XLA's partitioner would gather the shards for the first form, and would sum all rows over the devices
for the second. The custom partitioning rule in this file prevents both, on meshes of automatic and of explicit axes.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def count_apart(arrays: list[jax.Array], pivots: jax.Array) -> jax.Array:
    """How many elements of all `arrays` lie below each pivot; see `count_together`."""

    def below(pivot: jax.Array) -> jax.Array:
        # Summed over the arrays first, so that one sum over the devices remains.
        return functools.reduce(jnp.add, [jnp.sum(array < pivot, dtype=jnp.int32) for array in arrays])

    return jnp.stack([below(pivot) for pivot in pivots])


def count_together(arrays: list[jax.Array], pivots: jax.Array, stride: int = 1) -> jax.Array:
    """How many elements of all `arrays` lie below each pivot.

    Args:
      arrays: int32, any shapes and shardings.
      pivots: int32 [p], p at least 2 for speed.
      stride: if above 1, a sample is counted: every `stride`-th slice of each shard along its longest axis.

    Returns:
      int32 [p].
    """
    return _count(_together, stride, pivots, *arrays)


def count_rows(arrays: list[jax.Array], pivots: jax.Array) -> jax.Array:
    """How many elements of all `arrays` lie below each pivot; see `count_together`."""
    return _count(_by_rows, 1, pivots, *arrays)


def _together(arrays: list[jax.Array], pivots: jax.Array) -> jax.Array:
    counts = jnp.zeros(pivots.shape, jnp.int32)
    for array in arrays:
        # One reduction of many operands, so that the array is read once.
        below = [(array < pivot).astype(jnp.int32) for pivot in pivots]
        zeros = [jnp.int32(0)] * len(below)
        counts += jnp.stack(lax.reduce(below, zeros, _add, tuple(range(array.ndim))))
    return counts


def _add(left: list[jax.Array], right: list[jax.Array]) -> list[jax.Array]:
    return [a + b for a, b in zip(left, right, strict=True)]


def _by_rows(arrays: list[jax.Array], pivots: jax.Array) -> jax.Array:
    arrays = _merged(arrays)

    def rows_below(pivot: jax.Array) -> jax.Array:
        rows = [jnp.sum(jnp.atleast_1d(array) < pivot, axis=-1, dtype=jnp.int32) for array in arrays]
        return jnp.concatenate([_flat(counts) for counts in rows])

    return jnp.stack([rows_below(pivot) for pivot in pivots]).sum(axis=1, dtype=jnp.int32)


# Arrays with fewer elements are counted as one, in rows of this length.
_SMALL, _ROW = 1 << 20, 1 << 10


def _merged(arrays: list[jax.Array]) -> list[jax.Array]:
    """The same elements in fewer arrays: all small arrays are copied into one, filled up with the largest number."""
    small = [_flat(array) for array in arrays if array.size < _SMALL]
    if len(small) < 2:
        return arrays
    filling = jnp.full(-sum(array.size for array in small) % _ROW, jnp.iinfo(jnp.int32).max, jnp.int32)
    together = jnp.concatenate([*small, filling]).reshape(-1, _ROW)
    return [*(array for array in arrays if array.size >= _SMALL), together]


def _flat(array: jax.Array) -> jax.Array:
    # While tracing on a mesh of explicit axes, a reshape of a split array needs its output sharding. Later, on a
    # device's own shard, nothing is split.
    return jnp.ravel(array, out_sharding=NamedSharding(jax.typeof(array).sharding.mesh, PartitionSpec(None)))


# A way to count: from a device's own arrays and the pivots to the counts.
Way = Callable[[list[jax.Array], jax.Array], jax.Array]


def _count_here(way: Way, stride: int, pivots: jax.Array, *arrays: jax.Array) -> jax.Array:
    return way([_sample(array, stride) for array in arrays] if stride > 1 else list(arrays), pivots)


def _sample(array: jax.Array, stride: int) -> jax.Array:
    # While tracing on a mesh of explicit axes, a split axis cannot be sliced. A device's own shard has no split axis.
    whole = [axis for axis, split in enumerate(jax.typeof(array).sharding.spec) if split is None]
    if not whole:
        return array
    axis = max(whole, key=array.shape.__getitem__)
    return lax.slice_in_dim(array, 0, None, stride, axis)


_count = custom_partitioning(_count_here, static_argnums=(0, 1))


def _partition(way: Way, stride: int, mesh: Mesh, operands: tuple[Any, ...], result: Any) -> tuple[Any, ...]:
    """How each device counts its shards: (mesh, function of the shards, sharding of the result, of the operands)."""
    del result
    replicated = NamedSharding(mesh, PartitionSpec(None))
    specs = [_even(mesh, operand) for operand in operands[1:]]

    def count_shards(pivots: jax.Array, *shards: jax.Array) -> jax.Array:
        split: dict[tuple[str, ...], list[jax.Array]] = {}
        for shard, spec in zip(shards, specs, strict=True):
            split.setdefault(tuple(sorted(itertools.chain(*map(_mesh_axes, spec)))), []).append(shard)
        # Arrays that are not split are whole on every device: psum over no axes.
        return sum(
            (lax.psum(_count_here(way, stride, pivots, *group), axes) for axes, group in split.items()),
            start=jnp.zeros(pivots.shape, jnp.int32),
        )

    return mesh, count_shards, replicated, (replicated, *(NamedSharding(mesh, spec) for spec in specs))


def _even(mesh: Mesh, operand: Any) -> PartitionSpec:
    """The even part of the operand's sharding: uneven shards are padded, and the padding would be counted."""
    parts = [math.prod(mesh.shape[axis] for axis in _mesh_axes(entry)) for entry in operand.sharding.spec]
    entries = zip(operand.sharding.spec, operand.shape, parts, strict=True)
    return PartitionSpec(*(entry if length % part == 0 else None for entry, length, part in entries))


def _mesh_axes(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes that an entry of a PartitionSpec names."""
    return (entry,) if isinstance(entry, str) else entry or ()


def _rule(
    way: Way, stride: int, mesh: Mesh, operands: list[Any], results: list[Any]
) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Shardy's rule: all axes of the arrays may be split and are summed over; pivots and counts are replicated."""
    del way, stride, mesh, results
    arrays = [[f"i{j}_{axis}" for axis in range(len(array.shape))] for j, array in enumerate(operands[1:])]
    rule = ", ".join(["p", *map(" ".join, arrays)]) + " -> p"
    return rule, {"reduction_factors": tuple(itertools.chain(*arrays)), "need_replication_factors": ("p",)}


_count.def_partition(_partition, sharding_rule=_rule)
