"""Checks that a network that was made smaller still is the same network.

Where the channels of a network were found by tracing, this is the last word: whatever the tracer took for something
else, and whatever the module's code does with its number of channels, a smaller network with other logits is refused.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import trees
from vpns_jax.errors import UserError, one_line, shorten
from vpns_jax.models.own_network import call_arguments, class_name

# The images' standard deviations: ordinary ones, and such as drive activations to where they are cut off.
SCALES = (1.0, 30.0)
IMAGES = 2
# The largest difference that is allowed, in standard deviations of the logits, and what rounding may add to it.
TOLERANCE, ROUNDING = 1e-4, 1e-6
_ADVICE = "use the network with its zeros instead; docs/models.md says what its code may do"


def check_same(
    before: tuple[nn.Module, Mapping[str, Any]],
    after: tuple[nn.Module, Mapping[str, Any]],
    *,
    image_size: int,
    classes: Sequence[int] | None,
) -> None:
    """Checks that a smaller network can be built and computes the same logits, for a few random images.

    Args:
      before: the module and its variables.
      after: the smaller module and its variables.
      image_size: the side of the images.
      classes: the logits that were kept; None if all were.

    Raises:
      UserError: the smaller module has variables of other shapes, fails, or computes other logits.
    """
    shape = (len(SCALES) * IMAGES, image_size, image_size, 3)
    _check_shapes(*after, shape)
    images = np.random.default_rng(0).normal(size=(len(SCALES), IMAGES, *shape[1:]))
    images *= np.reshape(SCALES, (-1, 1, 1, 1, 1))
    wanted, given = (logits(*each, images.reshape(shape)) for each in (before, after))
    if classes is not None:
        wanted = wanted[..., list(classes)]
    for scale, one, other in zip(SCALES, np.split(wanted, len(SCALES)), np.split(given, len(SCALES)), strict=True):
        spread, largest = float(one.std()), float(np.abs(one).max(initial=0))
        difference = float(np.abs(one - other).max(initial=0))
        # Not so for NaN, either.
        if not difference <= TOLERANCE * spread + ROUNDING * largest:
            raise UserError(
                f"{class_name(before[0])} cannot be made smaller: without its dead channels the logits of random "
                f"images (standard deviation {scale:g}) change by {difference:.2g}, and their own standard deviation "
                f"is {spread:.2g}; so its channels were not understood, or it computes with few bits: {_ADVICE}"
            )


def _check_shapes(model: nn.Module, variables: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    """Checks that the module makes variables of the shapes that are left."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = call_arguments(model)
    try:
        fresh: Any = jax.eval_shape(lambda key, x: model.init(key, x, **call), jax.random.key(0), images)
    # Whatever the module raises where its numbers of channels do not fit together.
    except Exception as error:
        raise UserError(
            f"{class_name(model)} cannot be made smaller: built with the widths that are left, it fails "
            f"({shorten(one_line(error), 120)}); it must take them all from `widths`: {_ADVICE}"
        ) from error
    built, left = ({path: leaf.shape for path, leaf in trees.flatten(tree).items()} for tree in (fresh, variables))
    for path in sorted(built.keys() | left.keys()):
        if built.get(path) != left.get(path):
            forms = [list(shapes[path]) if path in shapes else "missing" for shapes in (built, left)]
            raise UserError(
                f"{class_name(model)} cannot be made smaller: built with the widths that are left, its {path} is "
                f"{forms[0]}, not {forms[1]}; it must take them all from `widths`: {_ADVICE}"
            )


def logits(model: nn.Module, variables: Mapping[str, Any], images: np.ndarray) -> np.ndarray:
    """Computes logits in float32, without optimizations, which would take longer than so few images.

    Args:
      model: the module, whatever its `dtype`.
      variables: its variables.
      images: normalized images [b, h, w, 3].

    Returns:
      The logits [b, classes], float64.
    """
    if getattr(model, "dtype", None) is not None:
        model = model.clone(dtype=jnp.float32)
    with jax.default_matmul_precision("highest"):
        return np.asarray(_apply(model, variables, images.astype(np.float32)), np.float64)


# One function, so that a network that is shrunk several times is compiled once.
@functools.partial(
    jax.jit,
    static_argnums=0,
    compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
)
def _apply(model: nn.Module, variables: Mapping[str, Any], images: jax.Array) -> Any:
    return model.apply(variables, images, **call_arguments(model))
