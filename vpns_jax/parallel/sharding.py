"""Sharding: one mesh over all devices, with batches split over both axes and large parameters split over `fsdp`.

Small arrays are replicated. A large array of parameters, scores, masks or optimizer moments is split along its longest
axis that `fsdp` divides. All of them follow the same rule, so a weight, its score and its moments are on one device.
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
REPLICATED = PartitionSpec()
# Arrays with at least this many elements are split. For smaller ones, gathering costs time and saves little memory.
LARGE = 2**15


def make_mesh(
    batch_size: int,
    devices: list[jax.Device] | None = None,
    *,
    data: int = -1,
    fsdp: int = 1,
    key: str = "batch_size",
) -> Mesh:
    """The mesh over some devices.

    Args:
      batch_size: the batch size over all devices, which the number of devices must divide.
      devices: devices of any number of processes; None takes all devices.
      data: the length of axis "data"; -1 takes all devices that `fsdp` leaves.
      fsdp: the length of axis "fsdp"; -1 takes all devices that `data` leaves.
      key: the config's key of the batch size, for the error.

    Returns:
      The mesh.

    Raises:
      UserError: a length is neither -1 nor at least 1, both are -1, their product is not the number of devices, or it
        does not divide the batch.
    """
    devices = jax.devices() if devices is None else devices
    shape = _shape(len(devices), data, fsdp)
    mesh = jax.make_mesh(shape, (DATA_AXIS, FSDP_AXIS), axis_types=(AxisType.Auto,) * 2, devices=devices)
    check_batch(key, batch_size, mesh)
    return mesh


def check_batch(name: str, batch_size: int, mesh: Mesh) -> None:
    """Checks that the mesh's devices can share a batch evenly.

    Args:
      name: the config key to name in the error.
      batch_size: images in a batch.
      mesh: the mesh.

    Raises:
      UserError: the number of devices does not divide the batch.
    """
    if batch_size % mesh.size:
        raise UserError(f"{name} is {batch_size}; {mesh.size} devices allow multiples of {mesh.size}")


def _shape(devices: int, data: int, fsdp: int) -> tuple[int, int]:
    known = fsdp if data == -1 else data
    if known >= 1 and devices % known == 0:
        if data == -1:
            data = devices // known
        elif fsdp == -1:
            fsdp = devices // known
    if min(data, fsdp) < 1 or data * fsdp != devices:
        allowed = ", ".join(str(n) for n in range(1, devices + 1) if devices % n == 0)
        raise UserError(
            f"config.mesh is data {data} x fsdp {fsdp}, which is not the number of devices, {devices}; each allows -1 "
            f"(all that the other leaves, so not both) or one of {allowed}"
        )
    return data, fsdp


def local_mesh() -> Mesh:
    """A mesh of one device of this process, for computations of this process alone."""
    return make_mesh(1, jax.local_devices()[:1])


def partition(shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """How an array of parameters is split over devices.

    Args:
      shape: the array's shape.
      fsdp: the number of devices.

    Returns:
      A split of the longest axis that `fsdp` divides (the last of several); no split for small arrays.
    """
    divisible = [axis for axis, length in enumerate(shape) if length % fsdp == 0]
    if fsdp == 1 or math.prod(shape) < LARGE or not divisible:
        return REPLICATED
    longest = max(divisible, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*(None,) * longest, FSDP_AXIS)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copies each array of a tree to every device of the mesh; see `put`."""
    return jax.tree.map(lambda x: put(x, NamedSharding(mesh, REPLICATED)), tree)


def place(tree: PyTree, mesh: Mesh) -> PyTree:
    """Splits or replicates each array of a tree, as `partition` says; see `put`."""
    fsdp = mesh.shape[FSDP_AXIS]
    return jax.tree.map(lambda x: put(x, NamedSharding(mesh, partition(np.shape(x), fsdp))), tree)


def put(x: Any, where: jax.sharding.Sharding) -> jax.Array:
    """Puts an array on devices. Every process must call it, with the same values.

    Args:
      x: an array of NumPy or JAX.
      where: the sharding.

    Returns:
      The array with that sharding.
    """
    shared = isinstance(x, jax.Array) and not x.is_fully_addressable
    if where.is_fully_addressable:
        return jax.device_put(to_host(x) if shared else x, where)
    if shared:
        return jax.device_put(x, where)
    # `device_put` would send the whole array to the other processes for a comparison.
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, where, lambda index: x[index])


def to_host(tree: PyTree) -> PyTree:
    """Gathers every array of a tree as a NumPy array in every process; all processes must call it."""
    return jax.device_get(jax.tree.map(_gathered, tree))


def _gathered(x: Any) -> Any:
    if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
        return multihost_utils.process_allgather(x, tiled=True)
    return x


def batch_sharding() -> NamedSharding:
    """The sharding of a batch over the mesh in force (`jax.set_mesh`): the first axis is split."""
    return NamedSharding(jax.sharding.get_mesh(), BATCH)


def split_batch(tree: PyTree) -> PyTree:
    """Splits, inside `jax.jit`, the first axis of each array over the devices of the mesh in force.

    Args:
      tree: tree of arrays `[b, ...]`.

    Returns:
      The constrained tree; `tree` itself if no mesh is in force (`jax.set_mesh`).
    """
    if DATA_AXIS not in jax.sharding.get_abstract_mesh().axis_names:
        return tree
    return jax.lax.with_sharding_constraint(tree, BATCH)


def split_parameters(tree: PyTree) -> PyTree:
    """Splits, inside `jax.jit`, each array as `partition` says, if the mesh in force has an axis `fsdp`."""
    fsdp = _fsdp()
    if fsdp == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, partition(x.shape, fsdp)), tree)


def gather_parameters(tree: PyTree, dtype: Any = None) -> PyTree:
    """Gathers, inside `jax.jit`, split arrays for a computation; their gradients are split again.

    Args:
      tree: tree of arrays.
      dtype: the dtype to which large arrays are cast before they are sent; None sends them as they are.

    Returns:
      The tree with replicated arrays.
    """
    fsdp = _fsdp()
    if fsdp == 1:
        return tree

    def narrow(x: jax.Array) -> jax.Array:
        return x if dtype is None or partition(x.shape, fsdp) == REPLICATED else x.astype(dtype)

    return _gather(jax.tree.map(narrow, tree))


def _whole(tree: PyTree) -> PyTree:
    # The barrier makes XLA compute an array before it is sent. For a masked kernel, XLA for TPUs would otherwise gather
    # both factors, weight and mask.
    return jax.lax.with_sharding_constraint(jax.lax.optimization_barrier(tree), REPLICATED)


# Without this gradient rule, the gradient would be gathered on every device, too.
_gather = jax.custom_vjp(_whole)
_gather.defvjp(lambda tree: (_whole(tree), None), lambda _, gradient: (split_parameters(gradient),))


def _fsdp() -> int:
    return jax.sharding.get_abstract_mesh().shape.get(FSDP_AXIS, 1)
