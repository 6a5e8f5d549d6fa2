"""The canvas: a square of zeros with the image at its center, and the frame along its edges."""

import jax
import jax.numpy as jnp


def place(images: jax.Array, canvas_size: int) -> jax.Array:
    """Pads images with zeros to the size of the canvas. An odd number of zeros has one more below and on the right.

    Args:
      images: `[b, h, w, c]`.
      canvas_size: side of the canvas in pixels.

    Returns:
      `[b, canvas_size, canvas_size, c]`.

    Raises:
      ValueError: the images are larger than the canvas.
    """
    _, h, w, _ = images.shape
    if h > canvas_size or w > canvas_size:
        raise ValueError(f"images of {h} x {w} do not fit a canvas of {canvas_size} x {canvas_size}")
    top, left = (canvas_size - h) // 2, (canvas_size - w) // 2
    return jnp.pad(images, ((0, 0), (top, canvas_size - h - top), (left, canvas_size - w - left), (0, 0)))


def frame_shapes(canvas_size: int, width: int) -> dict[str, tuple[int, int, int]]:
    """The shapes of a frame's four strips. Top and bottom span the canvas.

    Args:
      canvas_size: side of the canvas in pixels.
      width: width of the frame, at most half the canvas.

    Returns:
      Shapes `[h, w, 3]` by name. A frame of half the canvas has only two strips, top and bottom; no strip is empty.
    """
    inner = canvas_size - 2 * width
    shapes = {"top": (width, canvas_size, 3), "bottom": (width, canvas_size, 3)}
    if inner > 0:
        shapes |= {"left": (inner, width, 3), "right": (inner, width, 3)}
    return shapes


def assemble_frame(strips: dict[str, jax.Array], canvas_size: int) -> jax.Array:
    """Joins the strips of `frame_shapes` to one array `[canvas_size, canvas_size, 3]`, zero inside the frame."""
    rows = [strips["top"]]
    if "left" in strips:
        inner, width, _ = strips["left"].shape
        middle = jnp.zeros((inner, canvas_size - 2 * width, 3), strips["left"].dtype)
        rows.append(jnp.concatenate([strips["left"], middle, strips["right"]], axis=1))
    rows.append(strips["bottom"])
    return jnp.concatenate(rows, axis=0)
