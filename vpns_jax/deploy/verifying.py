"""Checks on random images that a smaller network, or an exported file, has the logits of the network it is from."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax.deploy import images as preparing
from vpns_jax.deploy.classifier import Classifier
from vpns_jax.errors import UserError
from vpns_jax.training.network import predict

IMAGES = 8
# The largest difference that is allowed, in standard deviations of the logits. In float32, another order of additions
# changes logits by 1e-6; a wrong layer changes them by 1e-1 or more.
TOLERANCE = 1e-4
# The same for networks that compute in 16 bits, where another order of additions changes logits by 1e-2.
TOLERANCE_16_BITS = 1e-1


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference between the logits of two networks.

    Attributes:
      largest: the largest difference of two logits, divided by the standard deviation of all logits.
      agreement: the share of images for which the likeliest class is the same.
      images: the number of images.
    """

    largest: float
    agreement: float
    images: int

    def __str__(self) -> str:
        return (
            f"largest difference of the logits {self.largest:.2g} standard deviations, the same class for "
            f"{100 * self.agreement:.4g}% of {self.images} random images"
        )


def images(classifier: Classifier, count: int = IMAGES) -> np.ndarray:
    """Draws random images, from coarse to fine; every call gives the same ones.

    Args:
      classifier: the network that will get them.
      count: the number of images.

    Returns:
      uint8 [count, side, side, 3], where side is the network's `image_size`.
    """
    side, rng = classifier.description.image_size, np.random.default_rng(0)
    grains = [min(side, 2 ** (1 + i % 8)) for i in range(count)]
    drawn = (rng.integers(0, 256, (grain, grain, 3), np.uint8) for grain in grains)
    return np.stack([preparing.square(image, side) for image in drawn])


def logits(classifier: Classifier, squares: np.ndarray) -> np.ndarray:
    """Computes a network's logits on the CPU in full precision, prompted if it has a prompt.

    Args:
      classifier: the network.
      squares: uint8 [b, image_size, image_size, 3].

    Returns:
      float32 [b, t].

    Raises:
      UserError: JAX was told to leave out the CPU.
    """
    with on_cpu() as cpu:
        subnetwork = jax.device_put(classifier.subnetwork, cpu)
        source = predict(classifier.network, subnetwork, squares, prompted=classifier.description.prompted)
        return np.asarray(source, np.float32)[:, np.asarray(subnetwork.mapping)]


@contextlib.contextmanager
def on_cpu() -> Iterator[jax.Device]:
    """Runs the block's computations on the CPU, because accelerators multiply float32 with fewer bits by default.

    Yields:
      The device.

    Raises:
      UserError: JAX was told to leave out the CPU.
    """
    try:
        cpu = jax.devices("cpu")[0]
    except RuntimeError as error:
        raise UserError("networks are compared on the CPU, which JAX_PLATFORMS leaves out; add ',cpu' to it") from error
    with jax.default_device(cpu):
        yield cpu


def compare(answers: np.ndarray, expected: np.ndarray) -> Difference:
    """Compares logits.

    Args:
      answers: the logits to check, [b, t].
      expected: the correct logits, [b, t].

    Returns:
      The difference; infinite if shapes differ or a value is not finite.
    """
    answers, expected = np.asarray(answers, np.float64), np.asarray(expected, np.float64)
    if answers.shape != expected.shape or not np.all(np.isfinite(answers)) or not np.all(np.isfinite(expected)):
        return Difference(np.inf, 0.0, len(expected))
    same = np.argmax(answers, axis=-1) == np.argmax(expected, axis=-1)
    # If all logits are equal, their deviation is zero, and the difference is not divided.
    scale = expected.std() or 1.0
    return Difference(float(np.abs(answers - expected).max() / scale), float(same.mean()), len(expected))


def check(difference: Difference, classifier: Classifier, what: str) -> None:
    """Checks that a difference is no more than rounding.

    Args:
      difference: the difference to the network's logits.
      classifier: the network, whose dtype decides how much rounding is allowed.
      what: the name of what is checked, for the error.

    Raises:
      UserError: the difference is more than rounding.
    """
    narrow = jnp.dtype(classifier.network.dtype or jnp.float32).itemsize < 4
    tolerance = TOLERANCE_16_BITS if narrow else TOLERANCE
    # Written with `not`, so that NaN is refused, too.
    if not difference.largest <= tolerance:
        raise UserError(
            f"{what} does not answer as the network does, so nothing was written: {difference}; at most {tolerance:g} "
            "is allowed. Do the network's own logits hold infinite values? If not, this is a fault of this library"
        )
