"""ONNX files: one file that holds a whole network, compared with the network in ONNX Runtime before it is kept."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import numpy as np

from vpns_jax import files
from vpns_jax.deploy.classifier import Classifier
from vpns_jax.errors import UserError
from vpns_jax.training.network import predict

# The largest difference between the logits of the file and of the network, as a share of their standard deviation.
TOLERANCE = 1e-4
# How many images are compared.
IMAGES = 4
# The format of the file, protobuf, has no more; a little is left for what is not weights.
MOST_BYTES = 2**31 - 2**24


def write(classifier: Classifier, out: Path) -> None:
    """Writes a network as an ONNX file; see `onnx_model.build`.

    Args:
      classifier: the network.
      out: the file to write; its folder exists.

    Raises:
      UserError: a package is not installed, the network is too large or of a family that ONNX is not written for, ONNX
        Runtime's logits differ from the network's, or the disk refuses; no file is written then.
    """
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX files need {' and '.join(missing)}, not installed here: pip install 'vpns_jax[deploy]'")
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(classifier.subnetwork.weights))
    if size > MOST_BYTES:
        raise UserError(
            f"the weights take {size / 1e9:.1f} GB, and an ONNX file holds at most {MOST_BYTES / 1e9:.1f} GB: shrink "
            "the network, or export it as stablehlo"
        )
    from vpns_jax.deploy.exports import onnx_model

    model = onnx_model.build(classifier).SerializeToString()
    with files.whole(out) as file:
        file.write(model)
        file.flush()
        _verify(classifier, Path(file.name), out)


def _verify(classifier: Classifier, file: Path, out: Path) -> None:
    """Raises `UserError` unless ONNX Runtime computes the network's logits from the file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    images = _images(classifier.description.image_size)
    expected = _logits(classifier, images)
    # The batch is compared as a whole and one by one: its size is dynamic.
    batches = [images, *images[:1, None]]
    answers = [session.run(["logits"], {"images": batch})[0] for batch in batches]
    worst = max(float(np.abs(answer - expected[: len(answer)]).max()) for answer in answers)
    scale = float(expected.std())
    # NaN is refused, too.
    if not worst <= TOLERANCE * scale:
        raise UserError(
            f"{out} is not written: in ONNX Runtime its logits differ from the network's by {worst:.2g}, more than "
            f"{TOLERANCE} of their standard deviation, {scale:.2g}; please report this"
        )


def _images(side: int) -> np.ndarray:
    """Images of coarse and fine noise, uint8 `[IMAGES, side, side, 3]`."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 128, (IMAGES, 8, 8, 3), np.uint8)
    place = np.arange(side) * 8 // side
    return coarse[:, place][:, :, place] + rng.integers(0, 128, (IMAGES, side, side, 3), np.uint8)


def _logits(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """The network's logits of its classes, float32 `[b, t]`, computed in float32 whatever its dtype is."""
    description, subnetwork = classifier.description, classifier.subnetwork
    exact = dataclasses.replace(classifier.network, model=classifier.network.model.clone(dtype=np.float32))
    with jax.default_matmul_precision("highest"):
        source_logits = predict(exact, subnetwork, images, prompted=description.prompted)
    return np.asarray(source_logits)[:, np.asarray(subnetwork.mapping)]
