"""Writes a finished network's weights as a single safetensors file in the layout that `models.export` takes.

That is torchvision's for ResNets and VGGs, Flax's for networks of one's own, and timm's for all others.

It differs from the `CELL.safetensors` of a run in two ways. The head has one output for each target class, in the order
of the class names. The metadata holds the network's description under "vpns_jax", as JSON (`Description.to_json`).
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

from vpns_jax import models
from vpns_jax.deploy import verifying
from vpns_jax.deploy.classifier import Classifier
from vpns_jax.deploy.exports.formats import Format
from vpns_jax.errors import UserError
from vpns_jax.models.layouts import Layout
from vpns_jax.storage import storage_errors
from vpns_jax.training.network import Subnetwork

_ABOUT = "vpns_jax"


def write(classifier: Classifier, path: Path) -> Classifier:
    """Writes a file.

    Args:
      classifier: the network.
      path: the file.

    Returns:
      The network.

    Raises:
      UserError: the network has a prompt or no layout, or the disk refuses.
    """
    models.check_layout(classifier.description.model, **classifier.description.options)
    tensors = state_dict(classifier)
    with storage_errors(path.parent):
        models.save_safetensors(path, tensors, {_ABOUT: json.dumps(classifier.description.to_json())})
    return classifier


def answers(path: Path, classifier: Classifier, squares: np.ndarray) -> np.ndarray:
    """Computes the logits of a network with the weights in a file.

    Args:
      path: the file.
      classifier: the network that it was made from.
      squares: uint8 [b, image_size, image_size, 3].

    Returns:
      float32 [b, t].
    """
    description = classifier.description
    classes = len(description.classes)
    variables = models.load_pretrained(
        description.model, path, num_classes=classes, image_size=description.input_size, **description.options
    )
    subnetwork = Subnetwork(
        weights=variables["params"],
        mask={},
        batch_stats=variables.get("batch_stats", {}),
        prompt={},
        mapping=jax.device_put(np.arange(classes, dtype=np.int32)),
    )
    return verifying.logits(dataclasses.replace(classifier, subnetwork=subnetwork), squares)


def state_dict(classifier: Classifier, layout: Layout | None = None) -> dict[str, np.ndarray]:
    """Converts the weights to a library's layout, with zeros where weights are pruned, and one output for each class.

    Args:
      classifier: the network.
      layout: the library's layout; by default that of `models.export`.

    Returns:
      Arrays by the library's names.

    Raises:
      UserError: the network has a prompt.
    """
    if classifier.description.prompted:
        raise UserError(
            "weights alone cannot hold a prompt, and this network has one: leave it off with --plain (in Python: "
            "network.without_prompt()), or take format onnx, stablehlo or packed"
        )
    return models.export(classifier.description.model, classifier.variables(), layout=layout)


SAFETENSORS = Format(
    name="safetensors",
    meaning="the weights alone, by torchvision's, timm's or (one's own) Flax's names, with a row of the head a class",
    suffix=".safetensors",
    write=write,
    answers=answers,
)
