"""Where arrays live: one mesh over all devices, batches split over both its axes, large parameters over `fsdp`.

What is small is whole on every device. A large array of parameters, scores, masks or an optimizer's moments is split
along its longest axis that `fsdp` divides; the same rule for all of them, so what belongs together lies together.
"""

import math
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vpns_jax.errors import UserError

PyTree = Any

DATA_AXIS, FSDP_AXIS = "data", "fsdp"
BATCH = PartitionSpec((DATA_AXIS, FSDP_AXIS))
WHOLE = PartitionSpec()
# From so many elements on an array is split: to gather a smaller one costs its latency and saves next to nothing.
LARGE = 2**15


def make_mesh(batch_size: int, devices: list[jax.Device] | None = None, *, data: int = -1, fsdp: int = 1) -> Mesh:
    """The mesh over `devices` (all of them by default), which must divide the batch evenly.

    Args:
      batch_size: over all devices.
      devices: of any number of processes.
      data, fsdp: the lengths of the axes; one of them may be -1, what the other leaves.

    Raises:
      UserError: the axes do not multiply to the number of devices, or they do not divide the batch.
    """
    devices = jax.devices() if devices is None else devices
    shape = _shape(len(devices), data, fsdp)
    mesh = jax.make_mesh(shape, (DATA_AXIS, FSDP_AXIS), axis_types=(AxisType.Auto,) * 2, devices=devices)
    check_batch("batch_size", batch_size, mesh)
    return mesh


def check_batch(name: str, batch_size: int, mesh: Mesh) -> None:
    """Raises `UserError` unless the mesh's devices can share a batch evenly."""
    if batch_size % mesh.size:
        raise UserError(f"{name} is {batch_size}; {mesh.size} devices allow multiples of {mesh.size}")


def _shape(devices: int, data: int, fsdp: int) -> tuple[int, int]:
    known = fsdp if data == -1 else data
    if data == -1 and devices % known == 0:
        data = devices // known
    elif fsdp == -1 and devices % known == 0:
        fsdp = devices // known
    if data * fsdp != devices:
        allowed = ", ".join(str(n) for n in range(1, devices + 1) if devices % n == 0)
        raise UserError(
            f"config.mesh is data {data} x fsdp {fsdp}, which {devices} devices do not fill; each allows -1, what the "
            f"other leaves, or one of {allowed}"
        )
    return data, fsdp


def local_mesh() -> Mesh:
    """A mesh of one device of this process, for what it computes on its own."""
    return make_mesh(1, jax.local_devices()[:1])


def partition(shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """How parameters of that shape are split over `fsdp` devices: the longest axis it divides, of equals the last."""
    divisible = [axis for axis, length in enumerate(shape) if length % fsdp == 0]
    if fsdp == 1 or math.prod(shape) < LARGE or not divisible:
        return WHOLE
    longest = max(divisible, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*(None,) * longest, FSDP_AXIS)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """The tree with a whole copy of each array on every device of the mesh; see `put`."""
    return jax.tree.map(lambda x: put(x, NamedSharding(mesh, WHOLE)), tree)


def place(tree: PyTree, mesh: Mesh) -> PyTree:
    """The tree with each array split or whole, as `partition` says; see `put`."""
    fsdp = mesh.shape[FSDP_AXIS]
    return jax.tree.map(lambda x: put(x, NamedSharding(mesh, partition(np.shape(x), fsdp))), tree)


def put(x: Any, where: jax.sharding.Sharding) -> jax.Array:
    """`x` laid out so. Every process must call it, with the same values."""
    shared = isinstance(x, jax.Array) and not x.is_fully_addressable
    if where.is_fully_addressable:
        return jax.device_put(to_host(x) if shared else x, where)
    if shared:
        return jax.device_put(x, where)
    # `device_put` would send all of it to the other processes, to compare.
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, where, lambda index: x[index])


def to_host(tree: PyTree) -> PyTree:
    """Every array whole, as numpy, in every process; all of them must call it."""
    return jax.device_get(jax.tree.map(_gathered, tree))


def _gathered(x: Any) -> Any:
    if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
        return multihost_utils.process_allgather(x, tiled=True)
    return x


def batch_sharding() -> NamedSharding:
    """How a batch from the host is laid over the mesh in force (`jax.set_mesh`): its first axis split."""
    return NamedSharding(jax.sharding.get_mesh(), BATCH)


def split_batch(tree: PyTree) -> PyTree:
    """Asks, inside `jax.jit`, that the first axis be split over the devices of the mesh in force, if one is.

    The mesh comes from `jax.set_mesh`; without one nothing happens.
    """
    if DATA_AXIS not in jax.sharding.get_abstract_mesh().axis_names:
        return tree
    return jax.lax.with_sharding_constraint(tree, BATCH)


def split_parameters(tree: PyTree) -> PyTree:
    """Asks, inside `jax.jit`, that each array be laid out as `partition` says, where the mesh in force has `fsdp`."""
    fsdp = _fsdp()
    if fsdp == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, partition(x.shape, fsdp)), tree)


def gather_parameters(tree: PyTree, dtype: Any = None) -> PyTree:
    """Asks, inside `jax.jit`, for whole arrays to compute with; their gradients come back split.

    Args:
      dtype: what all large arrays are cast to before anything is computed with them. They are sent as that; None
        sends them as they are.
    """
    fsdp = _fsdp()
    if fsdp == 1:
        return tree

    def narrow(x: jax.Array) -> jax.Array:
        return x if dtype is None or partition(x.shape, fsdp) == WHOLE else x.astype(dtype)

    return _gather(jax.tree.map(narrow, tree))


def _whole(tree: PyTree) -> PyTree:
    # Finished before it is sent: XLA for TPUs would gather the factors of a masked kernel, weight and mask.
    return jax.lax.with_sharding_constraint(jax.lax.optimization_barrier(tree), WHOLE)


# Without a rule of its own the gradient would be asked for whole as well, on every device.
_gather = jax.custom_vjp(_whole)
_gather.defvjp(lambda tree: (_whole(tree), None), lambda _, gradient: (split_parameters(gradient),))


def _fsdp() -> int:
    return jax.sharding.get_abstract_mesh().shape.get(FSDP_AXIS, 1)
