"""The canvas: the square of zeros an image is centred on, and the frame around its middle."""

import jax
import jax.numpy as jnp


def place(images: jax.Array, canvas_size: int) -> jax.Array:
    """Centres `images` [b, h, w, c] on zeros [b, canvas_size, canvas_size, c]; an odd rest goes below and right.

    Raises:
      ValueError: an image is larger than the canvas.
    """
    _, h, w, _ = images.shape
    if h > canvas_size or w > canvas_size:
        raise ValueError(f"images of {h} x {w} do not fit a canvas of {canvas_size} x {canvas_size}")
    top, left = (canvas_size - h) // 2, (canvas_size - w) // 2
    return jnp.pad(images, ((0, 0), (top, canvas_size - h - top), (left, canvas_size - w - left), (0, 0)))


def frame_shapes(canvas_size: int, width: int) -> dict[str, tuple[int, int, int]]:
    """The four strips [h, w, 3] of a frame; top and bottom span the canvas. No strip is empty.

    A frame of half the canvas covers it with two strips alone.
    """
    inner = canvas_size - 2 * width
    shapes = {"top": (width, canvas_size, 3), "bottom": (width, canvas_size, 3)}
    if inner > 0:
        shapes |= {"left": (inner, width, 3), "right": (inner, width, 3)}
    return shapes


def assemble_frame(strips: dict[str, jax.Array], canvas_size: int) -> jax.Array:
    """The strips of `frame_shapes` as one [canvas_size, canvas_size, 3] array, zero inside the frame."""
    rows = [strips["top"]]
    if "left" in strips:
        inner, width, _ = strips["left"].shape
        middle = jnp.zeros((inner, canvas_size - 2 * width, 3), strips["left"].dtype)
        rows.append(jnp.concatenate([strips["left"], middle, strips["right"]], axis=1))
    rows.append(strips["bottom"])
    return jnp.concatenate(rows, axis=0)
