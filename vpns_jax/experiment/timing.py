"""How long a batch takes on this device: in the masked network, in the dense one, and without the dead channels."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vpns_jax import deploy
from vpns_jax.analysis import flops, latency
from vpns_jax.deploy import Classifier
from vpns_jax.errors import UserError
from vpns_jax.models import HEAD
from vpns_jax.parallel import sharding
from vpns_jax.training.network import Network, Subnetwork, predict, without_prompt

# Dead channels that cost less than this share of the multiply-adds are not worth a program of their own.
WORTHWHILE = 0.01


def masked(network: Network, subnetwork: Subnetwork, images: Any) -> dict[str, Any]:
    """Measures how long the masked and the dense network take for a plain batch.

    Args:
      network: the static half.
      subnetwork: the sparse network.
      images: uint8 [b, h, w, c].

    Returns:
      The times of `latency.compare`.
    """
    times = latency.compare(_timed(network, _whole(subnetwork), images), _timed(network, subnetwork, images))
    return times | {"batch_size": len(images)}


def without_dead_channels(finished: Classifier, images: Any) -> dict[str, Any]:
    """Measures the network without the channels that its mask left dead, as `shrink` writes it, beside the dense one.

    Args:
      finished: the network, with a mask of any kind.
      images: uint8 [b, h, w, c].

    Returns:
      The costs "dense" and "shrunk" in "multiply_adds", with the same classes; and in "latency" the times of
      `latency.compare`, those of the smaller network under "shrunk". Empty if less than `WORTHWHILE` is dead, or if
      channels of this model are unknown.
    """
    try:
        small = deploy.shrink(finished)
    except UserError:
        # It is not known which layers share channels.
        return {}
    side = finished.description.input_size
    sizes = [
        flops.multiply_adds(flops.kernels(each.network.model, image_size=side), [], head=HEAD)
        for each in (finished, small)
    ]
    dense, body = sizes[0]["dense"], sizes[1]["dense_without_head"]
    # Shrinking also drops the head's rows of other classes, which no mask decides.
    rows, kept = (each.subnetwork.weights[HEAD]["kernel"].shape[-1] for each in (finished, small))
    cost = body + (sizes[1]["dense"] - body) // kept * rows
    if cost > (1 - WORTHWHILE) * dense:
        return {}
    whole = _timed(finished.network, _whole(finished.subnetwork), images)
    times = latency.compare(whole, _timed(small.network, small.subnetwork, images))
    return {
        "multiply_adds": {"dense": dense, "shrunk": cost},
        "latency": times | {"shrunk": times.pop("masked"), "batch_size": len(images)},
    }


def _timed(network: Network, subnetwork: Subnetwork, images: Any) -> Callable[[], Any]:
    """A function that runs a plain batch, distributed as in evaluation, so that the compiled program is reused."""
    network, subnetwork = without_prompt(network, subnetwork)
    subnetwork = sharding.replicate(subnetwork, jax.sharding.get_mesh())
    images = jax.device_put(images, sharding.batch_sharding())
    return functools.partial(predict, network, subnetwork, images, prompted=False)


def _whole(subnetwork: Subnetwork) -> Subnetwork:
    """The network with a mask that keeps everything. It does the same multiplications, so times can be compared."""
    return dataclasses.replace(subnetwork, mask=jax.tree.map(lambda x: np.ones(x.shape, x.dtype), subnetwork.mask))
