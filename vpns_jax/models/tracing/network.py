"""From a network to its channels."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax import trees
from vpns_jax.errors import UserError, one_line
from vpns_jax.models.cpu import platforms
from vpns_jax.models.own_network import call_arguments, class_name
from vpns_jax.models.tracing.kernels import is_kernel
from vpns_jax.models.tracing.program import Program
from vpns_jax.models.tracing.scene import closed
from vpns_jax.models.tracing.spaces import Spaces
from vpns_jax.models.tracing.summary import summarize
from vpns_jax.models.tracing.values import Value, parameter
from vpns_jax.models.wiring import Channels, Writer

# Two images, so that nothing can be taken for the batch that has size 1.
BATCH = 2


def trace_channels(
    function: Callable[[Any, Any], Any], variables: Any, images: tuple[int, ...]
) -> tuple[Channels, ...]:
    """Finds the channels of any function of variables and images.

    Args:
      function: maps variables and images to logits, without randomness. It is only traced.
      variables: nested dict of arrays or shapes, with the collection "params". The running statistics of batch
        normalizations are in "batch_stats". Arrays of other collections are never cut: channels that have numbers
        there are fixed.
      images: the images' shape `[b, h, w, c]`, with b > 1, since an axis of size 1 is taken for no batch. They are
        float32.

    Returns:
      The channels, in the order in which their first layers compute. Each kernel is listed once.

    Raises:
      Exception: whatever `function` raises for these variables and images.
    """
    leaves = trees.flatten(variables)
    with platforms.assumed("tpu"):
        program = jax.make_jaxpr(function)(variables, jax.ShapeDtypeStruct(images, jnp.float32))
    spaces = Spaces()
    samples = {path: spaces.draw_parameter(positive=path.endswith("/var")) for path in leaves}
    inputs = {path: parameter(path, tuple(leaf.shape), samples[path]) for path, leaf in leaves.items()}
    order = [inputs[path] for path in trees.named_leaves(variables)]
    follower = Program(samples, {path: len(leaf.shape) for path, leaf in leaves.items()}, spaces)
    outputs = follower.follow(program.jaxpr, program.consts, [*order, Value(images, data=True)])
    for output in outputs:
        spaces.fix_all([closed(spaces, label) for label in output.labels], "its output channels are the classes")
    channels = summarize(spaces)
    written = {kernel for each in channels for kernel in each.kernels}
    left = (path.removeprefix("params/") for path in leaves if is_kernel(path))
    lost = "the trace finds no layer that multiplies by it as an array [..., in, out]"
    return (*channels, *(Channels((Writer(path),), fixed=lost) for path in left if path not in written))


@functools.cache
def traced(model: nn.Module, *, image_size: int) -> tuple[Channels, ...]:
    """Finds the channels of a Linen module.

    Args:
      model: maps images `[b, image_size, image_size, 3]` to logits; its call may take `train`.
      image_size: the images' side.

    Returns:
      See `trace_channels`. A module with `widths` has the channels of the standard one; only what is concatenated lies
      elsewhere.

    Raises:
      UserError: the network cannot be traced with these images, or none of its channels can be pruned.
    """
    widths = dict(getattr(model, "widths", ()))
    # Rounded constants would hide which function an activation is.
    typed = "dtype" in {field.name for field in dataclasses.fields(model)} and getattr(model, "dtype", None) is not None
    changes: dict[str, Any] = ({"dtype": jnp.float32} if typed else {}) | ({"widths": ()} if widths else {})
    call = call_arguments(model)
    images = (BATCH, image_size, image_size, 3)
    name = class_name(model)
    try:
        standard, shape = model.clone(**changes), jax.ShapeDtypeStruct(images, jnp.float32)
        variables: Any = jax.eval_shape(functools.partial(standard.init, **call), jax.random.key(0), shape)
        channels = trace_channels(lambda v, x: standard.apply(v, x, **call), variables, images)
    except UserError:
        raise
    # Whatever a module of others raises.
    except Exception as error:
        raise UserError(
            f"{name} cannot be traced with images of {image_size} px, so its channels are unknown: {one_line(error)}"
        ) from error
    if all(each.fixed for each in channels):
        reason = f"of {channels[0].name}, {channels[0].fixed}" if channels else "it has no array called kernel"
        raise UserError(f"no channel of {name} can be pruned as a whole: {reason}")
    sizes = {path: leaf.shape[-1] for path, leaf in trees.flatten(variables["params"]).items() if leaf.ndim}
    return _moved(channels, sizes, widths)


def _moved(channels: tuple[Channels, ...], sizes: dict[str, int], widths: dict[str, int]) -> tuple[Channels, ...]:
    """Moves what is concatenated behind channels that have other widths."""
    places: dict[str, list[tuple[int, int]]] = {}
    for each in channels:
        layer = each.name.removesuffix("/kernel")
        gone = sizes[each.name] - widths.get(layer, sizes[each.name])
        for reader in each.readers:
            places.setdefault(reader.kernel, []).append((reader.offset, gone))
    return tuple(
        each._replace(
            readers=tuple(
                reader._replace(
                    offset=reader.offset - sum(gone for start, gone in places[reader.kernel] if start < reader.offset)
                )
                for reader in each.readers
            )
        )
        for each in channels
    )
