"""Visual prompts: x' = clip(place(x) + m * delta), a learnable perturbation on a part of the canvas.

A prompt is a small immutable value, and the caller holds its parameters, a tree. Each kind is a class in `kinds`.
"""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax.prompting import canvas

PyTree = Any
Shape = tuple[int, int, int]

# Parameter -> perturbation. Parameters start at zero, so the perturbation starts at 0, 1/2 and 0.
PARAMETRIZATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "raw": lambda theta: theta,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
}


@dataclasses.dataclass(frozen=True)
class Prompt(abc.ABC):
    """What all kinds share; make one with `prompting.create`. Hashable, so it can be static under `jax.jit`.

    Attributes:
      canvas_size: the side S of the network's input, in pixels.
      size: the prompt's size in pixels; each kind says of what.
      parametrization: a name in `PARAMETRIZATIONS`.
      clamp: a name in `CLAMPS`.
    """

    canvas_size: int
    size: int
    parametrization: str
    clamp: str

    # The kind's name, as in the config.
    kind: ClassVar[str]
    # The argument of `prompting.create` that is this kind's size: "pad_size", "patch_size", or "" for no size.
    size_name: ClassVar[str]
    # The parametrization that the released code uses for this kind.
    usual_parametrization: ClassVar[str]

    @classmethod
    @abc.abstractmethod
    def largest(cls, canvas_size: int) -> int:
        """The largest size that fits a canvas."""

    @abc.abstractmethod
    def shapes(self) -> dict[str, Shape]:
        """The parameters' shapes [h, w, 3] by name."""

    @abc.abstractmethod
    def arrange(self, delta: dict[str, jax.Array], rng: jax.Array | None) -> jax.Array:
        """Puts the perturbation where it belongs.

        Args:
          delta: float32, of the shapes and names of `shapes`.
          rng: a key for a prompt that moves; None for its resting place.

        Returns:
          Float32 [S, S, 3], zero outside the prompt.
        """

    @property
    def image_size(self) -> int | None:
        """The side that images must have, in pixels; None if all that fit the canvas will do."""
        return None

    @property
    def is_learned(self) -> bool:
        """Whether there is anything to learn."""
        return bool(self.shapes())

    def parameter_count(self) -> int:
        """How many numbers are learned: 3 (4 p S - 4 p^2) for a frame of p pixels, 3 k^2 for a square."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    def init(self, rng: jax.Array | None = None) -> dict[str, jax.Array]:
        """Makes the parameters: float32 zeros.

        Args:
          rng: a key, as all makers of trees take one; nothing is drawn from it.
        """
        del rng
        # From the host, because a device's zeros are a program for each shape.
        return {name: jax.device_put(np.zeros(shape, np.float32)) for name, shape in self.shapes().items()}

    def perturbation(self, params: PyTree, rng: jax.Array | None = None) -> jax.Array:
        """Computes m * delta.

        Args:
          params: the tree of `init`.
          rng: a key for a prompt that moves; None for its resting place.

        Returns:
          Float32 [S, S, 3], zero outside the prompt.
        """
        activate = PARAMETRIZATIONS[self.parametrization]
        return self.arrange({name: activate(theta) for name, theta in params.items()}, rng)

    def apply(self, params: PyTree, images: jax.Array, rng: jax.Array | None = None) -> jax.Array:
        """Prompts a batch: puts the images on the canvas, adds the perturbation, and clips to [0, 1].

        Args:
          params: the tree of `init`.
          images: float [b, h, w, 3] in [0, 1], at most as large as the canvas, or of `image_size`.
          rng: a key, for a prompt that moves in training.

        Returns:
          Float [b, S, S, 3] in [0, 1].

        Raises:
          ValueError: the images do not fit.
        """
        _, h, w, _ = images.shape
        side = self.image_size
        if side is not None and (h, w) != (side, side):
            raise ValueError(f"{self} takes images of {side} x {side}, found {h} x {w}")
        placed = canvas.place(images, self.canvas_size)
        if not self.is_learned:
            return placed
        return CLAMPS[self.clamp](placed + self.perturbation(params, rng)[None])

    def __str__(self) -> str:
        return f"prompt {self.kind} of {self.size} px on a canvas of {self.canvas_size} px"


def _clip(x: jax.Array) -> jax.Array:
    """Clips to [0, 1], with gradient 1 on the closed interval and 0 outside.

    `jnp.clip` has gradient 1/2 at 0 and 1, which are the values of black and white pixels under a prompt that is zero.
    """
    inside = (x >= 0) & (x <= 1)
    return jnp.where(inside, x, jax.lax.stop_gradient(jnp.clip(x, 0.0, 1.0)))


@jax.custom_jvp
def _clip_straight_through(x: jax.Array) -> jax.Array:
    """Clips to [0, 1], with gradient 1 everywhere."""
    return _clip(x)


@_clip_straight_through.defjvp
def _clip_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return _clip(primals[0]), tangents[0]


CLAMPS: dict[str, Callable[[jax.Array], jax.Array]] = {"hard": _clip, "straight_through": _clip_straight_through}
