"""Makes a finished network smaller with the same logits, and measures its size."""

import dataclasses
from typing import Any

import jax
import numpy as np

from vpns_jax import models, trees
from vpns_jax.analysis import flops
from vpns_jax.deploy.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a network.

    Attributes:
      channels: the outputs of all convolutions and dense layers except the head.
      parameters: the number of weights, without the prompt's parameters.
      multiply_adds: the multiply-adds of all kernels for one image at the model's input size; zeros count, too.
      bytes: the size of the weights and running statistics in float32.
    """

    channels: int
    parameters: int
    multiply_adds: int
    bytes: int


def shrink(classifier: Classifier, *, round_to: int = 1) -> Classifier:
    """Removes dead channels, hidden units and attention heads, and classes of the head that no target class maps to.

    Except for rounding, the logits of all target classes stay the same, prompted and plain.

    Args:
      classifier: the network; its mask says which weights are zero.
      round_to: keeps some dead channels, so that each width is a multiple of this number, at least 1, or unchanged.

    Returns:
      The smaller network. Its widths are in `options["widths"]`, its head has one output for each target class, and its
      mask has the new shapes.

    Raises:
      UserError: `round_to` is below 1; or it is a network of one's own that cannot be made smaller: its channels
        cannot be found, its module has no field `widths` or `num_classes`, or its channels were misunderstood, so that
        the smaller network cannot be built or computes other logits.
    """
    # On the host, because a device would compile small programs for every shape.
    old = jax.device_get(classifier.subnetwork)
    classes = np.asarray(old.mapping).tolist()
    shrunk = models.shrink(
        classifier.network.model,
        old.masked().variables(),
        classes=classes,
        round_to=round_to,
        image_size=classifier.description.input_size,
    )
    weights = trees.flatten(jax.device_get(shrunk.variables["params"]))
    # A mask of channels has norms and biases, too.
    masked = trees.flatten(old.mask or models.prunable(shrunk.variables["params"]))
    subnetwork = dataclasses.replace(
        classifier.subnetwork,
        weights=shrunk.variables["params"],
        # Weights that were folded into others are zero, so not kept.
        mask=jax.device_put(trees.unflatten({path: weights[path] != 0 for path in masked})),
        batch_stats=shrunk.variables.get("batch_stats", {}),
        mapping=jax.device_put(np.arange(len(classes), dtype=np.int32)),
    )
    options = dict(classifier.description.options) | {"widths": dict(shrunk.model.widths)}
    return Classifier(dataclasses.replace(classifier.description, options=options), subnetwork)


def size_of(classifier: Classifier) -> Size:
    """Measures the size of a network.

    Args:
      classifier: the network.

    Returns:
      Its size. It does not depend on the mask.
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
