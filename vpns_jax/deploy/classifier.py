"""A finished network as a classifier: from images to probabilities and class names."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import models, prompting
from vpns_jax.deploy import images as preparing
from vpns_jax.deploy.description import Description
from vpns_jax.errors import UserError
from vpns_jax.prompting import label_mapping
from vpns_jax.training.network import Network, Subnetwork, predict

# A batch of images at 224 px takes 19 MB in float32.
BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """A network's predictions for some images.

    Attributes:
      probabilities: float32 [b, t].
      classes: the names of the t classes.
    """

    probabilities: np.ndarray
    classes: tuple[str, ...]

    @property
    def labels(self) -> np.ndarray:
        """The likeliest class of each image, int [b], an index into `classes`; the first if several are equal."""
        return np.argmax(self.probabilities, axis=-1)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of the likeliest class of each image."""
        return tuple(self.classes[label] for label in self.labels.tolist())

    def top(self, count: int) -> list[list[tuple[str, float]]]:
        """The `count` likeliest classes of each image with their probabilities, the likeliest first."""
        # A stable sort keeps classes of equal probability in order.
        likeliest = np.argsort(-self.probabilities, axis=-1, kind="stable")[:, :count]
        shares = np.take_along_axis(self.probabilities, likeliest, axis=-1)
        names = [[self.classes[label] for label in row] for row in likeliest.tolist()]
        return [list(zip(*row, strict=True)) for row in zip(names, shares.tolist(), strict=True)]


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A finished network with everything needed to run it. `deploy.load` reads one, `deploy.save` writes one.

    Attributes:
      description: everything but the arrays.
      subnetwork: the arrays.
    """

    description: Description
    subnetwork: Subnetwork

    def __post_init__(self) -> None:
        targets, names = self.subnetwork.mapping.size, len(self.description.classes)
        if targets != names:
            raise UserError(f"the network has {targets} target classes, and {names} class names are given")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the target classes."""
        return self.description.classes

    @functools.cached_property
    def network(self) -> Network:
        """The static half of the network."""
        return self.description.network(int(self.subnetwork.weights[models.HEAD]["bias"].size))

    def without_prompt(self) -> "Classifier":
        """The same network without its prompt; it then gets plain images."""
        blank = prompting.create("none", canvas_size=self.description.prompt.canvas_size)
        return Classifier(
            dataclasses.replace(self.description, prompt=blank), dataclasses.replace(self.subnetwork, prompt={})
        )

    def variables(self) -> dict[str, Any]:
        """The masked variables on the host, for other programs. The head has one output for each target class."""
        subnetwork = jax.device_get(self.subnetwork).masked()
        head = jax.tree.map(lambda leaf: leaf[..., subnetwork.mapping], subnetwork.weights[models.HEAD])
        return dataclasses.replace(subnetwork, weights=subnetwork.weights | {models.HEAD: head}).variables()

    def predict(self, images: Any, *, prompted: bool | None = None, batch_size: int = BATCH_SIZE) -> Predictions:
        """Classifies images.

        Only two shapes are compiled: a single image, and a batch of `batch_size`. Smaller batches are padded.

        Args:
          images: uint8 [b, h, w, 3] or [h, w, 3], or a list of [h, w, 3] of different sizes. Gray images may have one
            channel.
          prompted: whether the prompt is applied; by default it is if the network has one.
          batch_size: images in a batch.

        Returns:
          A prediction for each image, in order.

        Raises:
          UserError: the images have another dtype or shape, or `prompted` is True and the network has no prompt.
        """
        separate = preparing.separate(images)
        size = 1 if len(separate) == 1 else batch_size
        square = functools.partial(preparing.square, size=self.description.image_size)
        squares = preparing.in_order(square, separate, ahead=2 * size)
        rows = [self.probabilities(batch, prompted, size) for batch in preparing.batched(squares, size)]
        return Predictions(np.concatenate([np.zeros((0, len(self.classes)), np.float32), *rows]), self.classes)

    def probabilities(self, squares: list[np.ndarray], prompted: bool | None, size: int) -> np.ndarray:
        """Classifies one batch of images from `preparing.square`, which is padded to `size` images.

        Args:
          squares: uint8 [image_size, image_size, 3], at least one and at most `size`.
          prompted: whether the prompt is applied; see `predict`.
          size: images in the padded batch.

        Returns:
          Float32 [b, t], without the padding.

        Raises:
          UserError: `prompted` is True and the network has no prompt.
        """
        prompted = self.description.prompted if prompted is None else prompted
        if prompted and not self.description.prompted:
            raise UserError("this network has no prompt: it was trained without one; leave prompted out")
        batch = np.stack([*squares, *squares[:1] * (size - len(squares))])
        source_logits = predict(self.network, self._masked, batch, prompted=prompted)
        return np.asarray(_softmax(source_logits, self.subnetwork.mapping))[: len(squares)]

    @functools.cached_property
    def _masked(self) -> Subnetwork:
        """The arrays, with the mask applied to the weights once instead of in every batch."""
        return _apply_mask(self.subnetwork) if self.subnetwork.mask else self.subnetwork


# One program for all layers, and not two for every shape; the arrays stay on their devices.
_apply_mask = jax.jit(Subnetwork.masked)


@jax.jit
def _softmax(source_logits: jax.Array, mapping: jax.Array) -> jax.Array:
    return jax.nn.softmax(label_mapping.apply(source_logits, mapping).astype(jnp.float32), axis=-1)
