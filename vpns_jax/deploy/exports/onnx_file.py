"""Writes a finished network as an ONNX file, for ONNX Runtime and other programs; see `onnx_model.build`."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import numpy as np

from vpns_jax import files
from vpns_jax.deploy.classifier import Classifier
from vpns_jax.deploy.exports.formats import Format
from vpns_jax.errors import UserError

# A file is one protobuf message, of at most 2 GiB. 16 MiB of it are left for all that is not weights.
MOST_BYTES = 2**31 - 2**24


def write(classifier: Classifier, path: Path) -> Classifier:
    """Writes a network.

    Args:
      classifier: the network.
      path: the file.

    Returns:
      The same network, but computing in float32.

    Raises:
      UserError: a package is not installed, the network is too large, its family has no ONNX graph, or the disk
        refuses.
    """
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"format onnx needs {' and '.join(missing)}: pip install 'vpns_jax[deploy]'")
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(classifier.subnetwork.weights))
    if size > MOST_BYTES:
        raise UserError(
            f"an ONNX file holds at most {MOST_BYTES / 1e9:.2g} GB, and the weights take {size / 1e9:.2g} GB: "
            "shrink the network, or export it as stablehlo"
        )
    from vpns_jax.deploy.exports import onnx_model

    files.write_whole(path, onnx_model.build(classifier).SerializeToString())
    description = classifier.description
    options = {name: value for name, value in description.options.items() if name != "dtype"}
    return Classifier(dataclasses.replace(description, options=options), classifier.subnetwork)


def answers(path: Path, classifier: Classifier, squares: np.ndarray) -> np.ndarray:
    """Runs a file in ONNX Runtime.

    Args:
      path: the file.
      classifier: the network that it was made from.
      squares: uint8 [b, image_size, image_size, 3].

    Returns:
      The logits, float32 [b, t].
    """
    import onnxruntime

    del classifier
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    # Two batches of different sizes, to check that the file takes any size.
    batches = [squares[:1], squares[1:]]
    return np.concatenate([session.run(["logits"], {"images": batch})[0] for batch in batches])


ONNX = Format(
    name="onnx",
    meaning="one graph with everything inside, for ONNX Runtime and other programs that read ONNX",
    suffix=".onnx",
    write=write,
    answers=answers,
)
