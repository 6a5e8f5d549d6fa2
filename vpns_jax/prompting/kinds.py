"""The kinds of prompt, one class each (VPNs, section 3 and figure 3; "corner" is the released code's "fix").

A new kind is a class here and an entry in `KINDS`. The first line of its docstring explains it to users, also in the
comment above `config.prompt.kind` in configs/default.py. Its size is `pad_size` or `patch_size`; for a size of another
name, `create`, `PromptConfig` (`experiment/groups/learning.py`) and `deploy.description` need one more argument.
"""

import jax
import jax.numpy as jnp

from vpns_jax.errors import UserError, check_name
from vpns_jax.prompting import canvas
from vpns_jax.prompting.prompts import CLAMPS, PARAMETRIZATIONS, Prompt, Shape


class Pad(Prompt):
    """A frame of pad_size pixels along the canvas's edges, over the image if that is as large."""

    kind = "pad"
    size_name = "pad_size"
    usual_parametrization = "raw"

    @classmethod
    def largest(cls, canvas_size: int) -> int:
        """Half the canvas; the frame then covers the whole canvas."""
        return canvas_size // 2

    def shapes(self) -> dict[str, Shape]:
        """Four strips; see `canvas.frame_shapes`."""
        return canvas.frame_shapes(self.canvas_size, self.size)

    def arrange(self, delta: dict[str, jax.Array], rng: jax.Array | None) -> jax.Array:
        """A frame around zeros."""
        del rng
        return canvas.assemble_frame(delta, self.canvas_size)


class Expand(Pad):
    """A frame of pad_size pixels around a smaller image; both together fill the canvas."""

    kind = "expand"
    usual_parametrization = "sigmoid"

    @classmethod
    def largest(cls, canvas_size: int) -> int:
        """The largest border that leaves room for an image."""
        return (canvas_size - 1) // 2

    @property
    def image_size(self) -> int:
        """The side of the canvas minus the border on both sides."""
        return self.canvas_size - 2 * self.size


class Corner(Prompt):
    """A square of side patch_size in the upper left corner."""

    kind = "corner"
    size_name = "patch_size"
    usual_parametrization = "sigmoid"

    @classmethod
    def largest(cls, canvas_size: int) -> int:
        """The whole canvas."""
        return canvas_size

    def shapes(self) -> dict[str, Shape]:
        """One square."""
        return {"patch": (self.size, self.size, 3)}

    def arrange(self, delta: dict[str, jax.Array], rng: jax.Array | None) -> jax.Array:
        """The square at (`row`, `column`) = `place(rng)` on zeros."""
        blank = jnp.zeros((self.canvas_size, self.canvas_size, 3), jnp.float32)
        return jax.lax.dynamic_update_slice(blank, delta["patch"], (*self.place(rng), 0))

    def place(self, rng: jax.Array | None) -> jax.Array:
        """The square's upper left pixel: int32 [2], row and column."""
        del rng
        return jnp.zeros(2, jnp.int32)


class Random(Corner):
    """A square of side patch_size at a random place, a new one for each batch."""

    kind = "random"

    def place(self, rng: jax.Array | None) -> jax.Array:
        """A place drawn from `rng`; the center if `rng` is None."""
        room = self.canvas_size - self.size
        return jnp.full(2, room // 2, jnp.int32) if rng is None else jax.random.randint(rng, (2,), 0, room + 1)


class Blank(Prompt):
    """No prompt: the image alone on its canvas."""

    kind = "none"
    size_name = ""
    usual_parametrization = "raw"

    @classmethod
    def largest(cls, canvas_size: int) -> int:
        """Zero, since there is nothing of any size."""
        return 0

    def shapes(self) -> dict[str, Shape]:
        """No shapes, since nothing is learned."""
        return {}

    def arrange(self, delta: dict[str, jax.Array], rng: jax.Array | None) -> jax.Array:
        """Zeros."""
        return jnp.zeros((self.canvas_size, self.canvas_size, 3), jnp.float32)


KINDS: dict[str, type[Prompt]] = {kind.kind: kind for kind in (Pad, Expand, Corner, Random, Blank)}


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
      kind: a name in `KINDS`.
      canvas_size: the side S of the network's input.
      pad_size: the frame's width in pixels, for `pad` and `expand`: 1 ... S / 2 (`expand` needs room for an image).
      patch_size: the square's side in pixels, for `corner` and `random`: 1 ... S.
      parametrization: "raw", "sigmoid" or "tanh"; None takes the parametrization of the released code for that kind.
      clamp: "hard" clips to [0, 1], which stops the gradient where the image is saturated; "straight_through" clips
        the value and lets the gradient pass.
      parametrisation: the former name of `parametrization`, accepted for one release.

    Returns:
      An instance of the kind's class.

    Raises:
      UserError: a name is unknown, or the prompt does not fit the canvas.
    """
    check_name("prompt", kind, list(KINDS))
    made = KINDS[kind]
    parametrization = parametrisation if parametrization is None else parametrization
    parametrization = made.usual_parametrization if parametrization is None else parametrization
    check_name("prompt parametrization", parametrization, list(PARAMETRIZATIONS))
    check_name("prompt clamp", clamp, list(CLAMPS))
    if canvas_size < 1:
        raise UserError(f"canvas_size is {canvas_size}; it must be at least 1")
    size, largest = {"pad_size": pad_size, "patch_size": patch_size}.get(made.size_name, 0), made.largest(canvas_size)
    if made.size_name and largest < 1:
        raise UserError(f"a canvas of {canvas_size} px is too small for prompt {kind}")
    if made.size_name and not 1 <= size <= largest:
        raise UserError(
            f"{made.size_name} is {size}; prompt {kind} on a canvas of {canvas_size} px allows 1 ... {largest}"
        )
    return made(canvas_size, size, parametrization, clamp)
