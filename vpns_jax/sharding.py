"""Where arrays live: one mesh over all devices, batches split over its `data` axis, everything else replicated."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vpns_jax.errors import UserError

PyTree = Any

DATA_AXIS = "data"


def make_mesh(batch_size: int, devices: list[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh over `devices` (all of them by default), which must divide the batch evenly.

    Raises:
      UserError: they do not.
    """
    devices = jax.devices() if devices is None else devices
    if batch_size % len(devices):
        raise UserError(f"batch_size is {batch_size}; {len(devices)} devices allow multiples of {len(devices)}")
    return jax.make_mesh((len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """The tree with a whole copy of each array on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def batch_sharding() -> NamedSharding:
    """How a batch from the host is laid over the mesh in force (`jax.set_mesh`): its first axis split."""
    return NamedSharding(jax.sharding.get_mesh(), PartitionSpec(DATA_AXIS))


def split_batch(tree: PyTree) -> PyTree:
    """Asks, inside `jax.jit`, that the first axis be split over the devices of the mesh in force, if one is.

    The mesh comes from `jax.set_mesh`; without one nothing happens.
    """
    if DATA_AXIS not in jax.sharding.get_abstract_mesh().axis_names:
        return tree
    return jax.lax.with_sharding_constraint(tree, PartitionSpec(DATA_AXIS))
