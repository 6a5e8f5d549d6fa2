"""Channels that are kept or pruned whole: one score each, and one gate that stands where the channel ends.

Batch normalisation makes the loss blind to the scale of what a kernel writes: a mask on the kernel has no gradient,
and what it prunes leaves a constant behind. A gate on what ends the channel has a gradient, and closed it makes the
channel exactly zero for all that follows, whatever the input: it multiplies the normalisation's scale and bias, or,
without one, the kernel's column and the bias. It is a map on the tree of weights: models know nothing of it.

While scores are learned the gate is all there is; kernels behind a normalisation stay, so that a closed gate is still
told how the loss would like it open. The mask of a finished network drops the kernels' columns, too.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from vpns_jax import trees
from vpns_jax.sparsity import layers, masks
from vpns_jax.sparsity.granularity import Granularity
from vpns_jax.sparsity.layers import Layer
from vpns_jax.sparsity.pattern import Pattern
from vpns_jax.sparsity.scores import level, scaled_init

PyTree = Any
CHANNEL = Granularity("channel")


class Writer(Protocol):
    """A layer whose outputs are channels, as `models.Writer`: paths into the weights, "" for what it has not."""

    @property
    def kernel(self) -> str: ...
    @property
    def bias(self) -> str: ...
    @property
    def norm(self) -> str: ...


class Channels(Protocol):
    """The channels of one tensor, as `models.Channels` has them."""

    @property
    def writers(self) -> Sequence[Writer]: ...
    @property
    def companions(self) -> Sequence[Writer]: ...
    @property
    def width(self) -> int: ...
    @property
    def fixed(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class ChannelPattern(Pattern):
    """Masks of whole channels. Hashable.

    Scores, gates and what is kept are trees of vectors, one number a channel (or a `width` of them), each at the path
    of the first kernel that writes it.

    Attributes:
      channels: all that the network has, from `models.channels`. Pruned are those all of whose kernels are prunable.
    """

    granularity: Granularity = CHANNEL
    channels: tuple[Channels, ...] = ()

    @property
    def selection(self) -> Pattern:
        """The pattern that `prune_groups` takes for scores: there is one a channel already."""
        return Pattern(allocation=self.allocation)

    def layers(self, shapes: PyTree) -> tuple[Layer, ...]:
        """Lists the tensors whose channels are pruned, each with all kernels that lose a column with a channel.

        Args:
          shapes: tree of kernels, or of their shapes.

        Returns:
          The layers, in the order of the scores' leaves.

        Raises:
          UserError: channels of a kernel are fixed, or shared with a kernel that `shapes` lack.
          ValueError: `channels` lack a kernel.
        """
        coupled = [(_kernels(each), each.width, each.fixed) for each in self.channels]
        strangers = trees.flatten(shapes).keys() - {kernel for kernels, _, _ in coupled for kernel in kernels}
        if strangers:
            raise ValueError(f"the channels of {', '.join(sorted(strangers))} are not known")
        named = layers.layers(self.granularity, shapes, coupled)
        return tuple(sorted(named, key=lambda layer: layer.leaves[0]))

    def scored(self, kernels: PyTree) -> PyTree:
        """Gives a gate for each channel, open, which is 1; see `Pattern.scored`."""
        return self._per_tensor(kernels, lambda layer, leaves: jnp.ones(layer.groups, leaves[0].dtype))

    def magnitude(self, kernels: PyTree) -> PyTree:
        """Computes the mean |w| of each channel's columns, over all kernels that have one; see `Pattern.magnitude`."""
        return self._per_tensor(kernels, lambda layer, leaves: layer.mean(leaves))

    def first_scores(self, kernels: PyTree) -> PyTree:
        """Makes initial scores: the mean |w| of the scaled weights, equally large in all layers."""
        return level(self.magnitude(scaled_init(kernels)))

    def put(self, weights: PyTree, scored: PyTree) -> PyTree:
        """Puts the gates on the weights; see `Pattern.put`."""
        return masks.apply(weights, self.gate(scored, weights))

    def gate(self, values: PyTree, weights: PyTree) -> PyTree:
        """Spreads each channel's value over all that ends it; see `Pattern.gate`."""
        return self._spread(values, weights, lambda each: [path for one in each.writers for path in _ends(one)])

    def mask(self, keep: PyTree, weights: PyTree) -> PyTree:
        """Spreads what is kept over what ends channels, writes them or serves them alone; see `Pattern.mask`."""
        return self._spread(keep, weights, _parts)

    def kept(self, mask: PyTree) -> PyTree:
        """Reads from a mask which channels it keeps; see `Pattern.kept`."""
        leaves, keep = trees.flatten(mask), {}
        for each in self.channels:
            if _name(each) in leaves:
                # All elements of a column are alike.
                column = leaves[_name(each)]
                keep[_name(each)] = column.reshape(-1, column.shape[-1])[0, :: each.width]
        return trees.unflatten(keep)

    def _per_tensor(self, kernels: PyTree, vector: Callable[[Layer, list[Any]], Any]) -> PyTree:
        """A tree of vectors, each at the path of the first writer."""
        named, _ = jax.tree_util.tree_flatten_with_path(kernels)
        paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in named]
        leaves = [leaf for _, leaf in named]
        return trees.unflatten({paths[layer.leaves[0]]: vector(layer, leaves) for layer in self.layers(kernels)})

    def _spread(self, values: PyTree, weights: PyTree, chosen: Callable[[Channels], list[str]]) -> PyTree:
        """The vectors, each repeated over the columns of the weights at the paths that are chosen for it."""
        vectors, shapes = trees.flatten(values), trees.flatten(weights)
        spread: dict[str, jax.Array] = {}
        for each in self.channels:
            if _name(each) in vectors:
                columns = jnp.repeat(vectors[_name(each)], each.width)
                spread |= {path: jnp.broadcast_to(columns, shapes[path].shape) for path in chosen(each)}
        return trees.unflatten(spread)


def _name(channels: Channels) -> str:
    return channels.writers[0].kernel


def _kernels(channels: Channels) -> tuple[str, ...]:
    return tuple(one.kernel for one in (*channels.writers, *channels.companions))


def _ends(writer: Writer) -> list[str]:
    """What makes a writer's channels zero: its normalisation's parameters or, without one, its own."""
    if writer.norm:
        return [f"{writer.norm}/scale", f"{writer.norm}/bias"]
    return [path for path in (writer.kernel, writer.bias) if path]


def _parts(channels: Channels) -> list[str]:
    """All that is a channel's own."""
    layers = (*channels.writers, *channels.companions)
    return list(dict.fromkeys(path for one in layers for path in (one.kernel, one.bias, *_ends(one)) if path))
