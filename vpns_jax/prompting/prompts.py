"""Visual prompts: x' = clip(place(x) + m * delta), a learnable perturbation on a part of the canvas.

A prompt is a small immutable description; its parameters are a tree that the caller holds. Kinds (VPNs, section 3
and figure 3; "corner" is the released code's "fix"):

    pad     a frame of `size` pixels on the canvas
    expand  the border of `size` pixels around a smaller image, which fills the canvas with it
    corner  a `size` x `size` square in the upper left corner
    random  a `size` x `size` square at a place drawn anew for each batch
    none    no perturbation: the image on its canvas
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax.errors import UserError, check_name
from vpns_jax.prompting import canvas

PyTree = Any

# The parametrization each kind has in the released code; any kind takes any.
KINDS = {"pad": "raw", "expand": "sigmoid", "corner": "sigmoid", "random": "sigmoid", "none": "raw"}
# Parameter -> perturbation. Parameters start at zero, so the perturbation starts at 0, 1/2 and 0.
PARAMETRIZATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "raw": lambda theta: theta,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt's kind and sizes; see `create`. Hashable, so it can be static under `jax.jit`."""

    kind: str
    canvas_size: int
    size: int
    parametrization: str
    clamp: str

    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """The parameters' shapes [h, w, 3] by name; empty for `none`."""
        if self.kind in ("pad", "expand"):
            return canvas.frame_shapes(self.canvas_size, self.size)
        if self.kind in ("corner", "random"):
            return {"patch": (self.size, self.size, 3)}
        return {}

    def parameter_count(self) -> int:
        """How many numbers are learned: 3 (4 p S - 4 p^2) for a frame of p pixels, 3 k^2 for a square."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    def init(self, rng: jax.Array | None = None) -> dict[str, jax.Array]:
        """Zeros, float32. `rng` is accepted so that all trees are initialised alike; nothing is drawn from it."""
        del rng
        return {name: jnp.zeros(shape, jnp.float32) for name, shape in self.shapes().items()}

    def perturbation(self, params: PyTree, rng: jax.Array | None = None) -> jax.Array:
        """m * delta: [S, S, 3] float32, zero outside the prompt.

        `random` draws its place from `rng`, uniformly over all that fit; without one it sits in the centre.
        """
        activate = PARAMETRIZATIONS[self.parametrization]
        delta = {name: activate(theta) for name, theta in params.items()}
        if self.kind in ("pad", "expand"):
            return canvas.assemble_frame(delta, self.canvas_size)
        blank = jnp.zeros((self.canvas_size, self.canvas_size, 3), jnp.float32)
        if self.kind == "none":
            return blank
        room = self.canvas_size - self.size
        if self.kind == "corner":
            corner = jnp.zeros(2, jnp.int32)
        elif rng is None:
            corner = jnp.full(2, room // 2, jnp.int32)
        else:
            corner = jax.random.randint(rng, (2,), 0, room + 1)
        return jax.lax.dynamic_update_slice(blank, delta["patch"], (*corner, 0))

    def apply(self, params: PyTree, images: jax.Array, rng: jax.Array | None = None) -> jax.Array:
        """Prompts `images`.

        Args:
          params: the tree of `init`.
          images: float [b, h, w, 3] in [0, 1], at most as large as the canvas; for `expand` exactly the canvas
            less the border.
          rng: a key, for `random` in training.

        Returns:
          Float [b, S, S, 3] in [0, 1].

        Raises:
          ValueError: the images do not fit.
        """
        _, h, w, _ = images.shape
        hole = self.canvas_size - 2 * self.size
        if self.kind == "expand" and (h, w) != (hole, hole):
            raise ValueError(
                f"prompt expand of {self.size} px on a canvas of {self.canvas_size} px takes images of "
                f"{hole} x {hole}, found {h} x {w}"
            )
        placed = canvas.place(images, self.canvas_size)
        if self.kind == "none":
            return placed
        return CLAMPS[self.clamp](placed + self.perturbation(params, rng)[None])


def create(
    kind: str,
    *,
    canvas_size: int,
    pad_size: int = 0,
    patch_size: int = 0,
    parametrization: str | None = None,
    clamp: str = "hard",
    parametrisation: str | None = None,
) -> Prompt:
    """A prompt on a canvas of `canvas_size` x `canvas_size` pixels.

    Args:
      kind: one of `KINDS`.
      canvas_size: the side S of the network's input.
      pad_size: the frame's width in pixels, for `pad` and `expand`: 1 ... S / 2 (`expand` needs room for an image).
      patch_size: the square's side in pixels, for `corner` and `random`: 1 ... S.
      parametrization: "raw", "sigmoid" or "tanh"; None takes the kind's own (`KINDS`).
      clamp: "hard" clips to [0, 1], which stops the gradient where the image is saturated; "straight_through"
        clips the value and lets the gradient pass.
      parametrisation: the former name of `parametrization`, accepted for one release.

    Raises:
      UserError: an unknown name, or a prompt that does not fit its canvas.
    """
    check_name("prompt", kind, list(KINDS))
    parametrization = parametrisation if parametrization is None else parametrization
    parametrization = KINDS[kind] if parametrization is None else parametrization
    check_name("prompt parametrization", parametrization, list(PARAMETRIZATIONS))
    check_name("prompt clamp", clamp, list(CLAMPS))
    if canvas_size < 1:
        raise UserError(f"canvas_size is {canvas_size}; it must be at least 1")
    name, size, most = {
        "pad": ("pad_size", pad_size, canvas_size // 2),
        "expand": ("pad_size", pad_size, (canvas_size - 1) // 2),
        "corner": ("patch_size", patch_size, canvas_size),
        "random": ("patch_size", patch_size, canvas_size),
        "none": ("", 0, 0),
    }[kind]
    if kind != "none" and not 1 <= size <= most:
        raise UserError(f"{name} is {size}; prompt {kind} on a canvas of {canvas_size} px allows 1 ... {most}")
    return Prompt(kind, canvas_size, size, parametrization, clamp)


def _clip(x: jax.Array) -> jax.Array:
    """Clips to [0, 1] with gradient one on the closed interval.

    `jnp.clip` gives half a gradient at the ends, where a black or white pixel under a zero prompt lies.
    """
    inside = (x >= 0) & (x <= 1)
    return jnp.where(inside, x, jax.lax.stop_gradient(jnp.clip(x, 0.0, 1.0)))


@jax.custom_jvp
def _clip_straight_through(x: jax.Array) -> jax.Array:
    return _clip(x)


@_clip_straight_through.defjvp
def _clip_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return _clip(primals[0]), tangents[0]


CLAMPS: dict[str, Callable[[jax.Array], jax.Array]] = {"hard": _clip, "straight_through": _clip_straight_through}
