"""From a finished network to a smaller one that answers the same, and how much smaller it is."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import models, trees
from vpns_jax.analysis import flops
from vpns_jax.deploy.classifier import Classifier
from vpns_jax.sparsity import masks


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a network is.

    Attributes:
      channels: outputs of all convolutions and dense layers but the head, hidden units and attention's among them.
      parameters: numbers that are learned; the prompt's are left out.
      multiply_adds: of the kernels, for one image at the network's own size, zeros included.
      bytes: of the weights in float32, running statistics among them.
    """

    channels: int
    parameters: int
    multiply_adds: int
    bytes: int


def shrink(classifier: Classifier, *, round_to: int = 1) -> Classifier:
    """Removes what is dead: channels, hidden units, attention heads, and rows of the head that no class is mapped to.

    The logits of all classes stay equal up to rounding, prompted and plain.

    Args:
      classifier: the network; its mask says which weights are zero.
      round_to: keep so many of the dead that widths are multiples of this, or as they were.

    Returns:
      The same network with `options["widths"]`, a head of as many rows as there are classes, and a mask of its own.

    Raises:
      UserError: what reads and writes the channels of such a model is not known.
    """
    old = classifier.subnetwork
    variables = {"params": masks.apply(old.weights, old.mask), "batch_stats": old.batch_stats}
    classes = np.asarray(old.mapping).tolist()
    shrunk = models.shrink(classifier.network.model, variables, classes=classes, round_to=round_to)
    weights = trees.flatten(shrunk.variables["params"])
    # A mask of channels has norms and biases, too.
    masked = trees.flatten(old.mask or models.prunable(shrunk.variables["params"]))
    subnetwork = dataclasses.replace(
        old,
        weights=shrunk.variables["params"],
        # What a mask kept in a layer that is here no more is gone; what was folded away is zero.
        mask=trees.unflatten({path: weights[path] != 0 for path in masked}),
        batch_stats=shrunk.variables.get("batch_stats", {}),
        mapping=jnp.arange(len(classes), dtype=jnp.int32),
    )
    options = dict(classifier.description.options) | {"widths": dict(shrunk.model.widths)}
    return Classifier(dataclasses.replace(classifier.description, options=options), subnetwork)


def size_of(classifier: Classifier) -> Size:
    """How large a network is.

    Args:
      classifier: the network.
    """
    subnetwork, side = classifier.subnetwork, classifier.description.input_size
    layers = flops.kernels(classifier.network.model, image_size=side)
    leaves = {path: leaf for path, leaf in trees.flatten(subnetwork.weights).items() if path.endswith("kernel")}
    return Size(
        channels=sum(leaf.shape[-1] for path, leaf in leaves.items() if not path.startswith(f"{models.HEAD}/")),
        parameters=_total(subnetwork.weights),
        multiply_adds=flops.multiply_adds(layers, [], head=models.HEAD)["dense"],
        bytes=4 * (_total(subnetwork.weights) + _total(subnetwork.batch_stats)),
    )


def _total(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
