"""Builds the ONNX model of a finished network, from uint8 images to probabilities and logits."""

import json
from typing import Any

import numpy as np
import onnx
from onnx import helper

from vpns_jax import trees
from vpns_jax.deploy.classifier import Classifier
from vpns_jax.deploy.exports.backbones import backbone
from vpns_jax.deploy.exports.graph import Graph


def build(classifier: Classifier) -> onnx.ModelProto:
    """Writes a network as an ONNX model, prompted if it has a prompt.

    Args:
      classifier: the network.

    Returns:
      The model, checked. It takes "images", uint8 `[batch, image_size, image_size, 3]`, and gives "probabilities" and
      "logits", float32 `[batch, t]`. Its metadata holds the class names under "classes", a JSON list, and the network's
      description under "vpns_jax".

    Raises:
      UserError: the network's family has no ONNX graph; see `backbones.FAMILIES`.
    """
    description = classifier.description
    graph, side = Graph(), description.image_size
    images = helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["batch", side, side, 3])
    x = graph.node("Transpose", "images", perm=[0, 3, 1, 2])
    x = graph.node("Div", graph.node("Cast", x, to=onnx.TensorProto.FLOAT), graph.constant(255.0))
    x = _prompted(graph, classifier, x)
    mean, std = (graph.constant(_per_channel(values)) for values in (description.mean, description.std))
    x = graph.node("Div", graph.node("Sub", x, mean), std)
    model = classifier.network.model
    logits = backbone(graph, model, trees.flatten(classifier.variables()), x, description.input_size)
    outputs = {"probabilities": graph.node("Softmax", logits, axis=-1), "logits": logits}
    metadata = {
        "classes": json.dumps(classifier.classes, ensure_ascii=False),
        "vpns_jax": json.dumps(description.to_json()),
    }
    return graph.model(images, outputs, len(classifier.classes), metadata)


def _prompted(graph: Graph, classifier: Classifier, x: str) -> str:
    """Puts images `[b, 3, h, w]` in [0, 1] on the canvas and applies the prompt, if the network has them."""
    description = classifier.description
    room = description.input_size - description.image_size
    if room:
        first, last = room // 2, room - room // 2
        x = graph.node("Pad", x, graph.constant(np.array([0, 0, first, first, 0, 0, last, last], np.int64)))
    if not description.prompted:
        return x
    perturbation = np.asarray(description.prompt.perturbation(classifier.subnetwork.prompt), np.float32)
    x = graph.node("Add", x, graph.constant(perturbation.transpose(2, 0, 1)[None]))
    return graph.node("Clip", x, graph.constant(np.float32(0)), graph.constant(np.float32(1)))


def _per_channel(values: Any) -> np.ndarray:
    return np.reshape(np.asarray(values, np.float32), (1, 3, 1, 1))
