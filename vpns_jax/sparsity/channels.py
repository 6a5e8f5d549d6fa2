"""Pruning of whole channels: each channel has one score, and one gate at the place where the channel ends.

With batch normalization, the loss does not depend on the scale of a kernel's outputs. So a mask on the kernel would get
no gradient, and a pruned channel would still be a constant. A gate multiplies the parameters that end the channel
instead: the scale and bias of its batch normalization or, without one, the kernel's column and the bias. It has a
gradient, and if it is closed, the channel is exactly zero for all following layers and for any input. The gate is
applied to the tree of weights, so models need no code for it.

While scores are learned, only the gate is applied: a kernel before a batch normalization keeps its column, so a closed
gate gets a gradient, too. The mask of a finished network drops the kernels' columns as well.
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
from vpns_jax.sparsity.scores import scaled_init

PyTree = Any
CHANNEL = Granularity("channel")


class Writer(Protocol):
    """A layer whose outputs are channels; see `models.Writer`. Paths are those of weights, "" for missing ones."""

    @property
    def kernel(self) -> str:
        """The path of its kernel."""

    @property
    def bias(self) -> str:
        """The path of its bias."""

    @property
    def norm(self) -> str:
        """The path of the batch normalization that follows."""


class Channels(Protocol):
    """The channels of one tensor; see `models.Channels`."""

    @property
    def writers(self) -> Sequence[Writer]:
        """The layers that write the channels."""

    @property
    def companions(self) -> Sequence[Writer]:
        """Layers whose outputs are useless without these channels."""

    @property
    def activation(self) -> Callable[[Any], Any]:
        """The function between writers and readers, of NumPy's arrays."""

    @property
    def vectors(self) -> Sequence[str]:
        """Paths of parameters that scale the channels on their way."""

    @property
    def width(self) -> int:
        """How many consecutive channels are pruned together."""

    @property
    def fixed(self) -> str:
        """Why no channel may be pruned; "" if channels may be pruned."""


@dataclasses.dataclass(frozen=True)
class ChannelPattern(Pattern):
    """Masks of whole channels. Hashable.

    Scores, gates and kept channels are trees of vectors, with one number for each channel (or for `width` consecutive
    channels). Each vector is at the path of the first kernel that writes the channels.

    Attributes:
      channels: all channels of the network, from `models.channels`. Channels are pruned if all their kernels are
        prunable.
    """

    granularity: Granularity = CHANNEL
    channels: tuple[Channels, ...] = ()

    @property
    def ranking(self) -> Pattern:
        """Ranks single scores; see `Pattern.ranking`."""
        return Pattern(allocation=self.allocation)

    def layers(self, shapes: PyTree) -> tuple[Layer, ...]:
        """Lists the tensors whose channels are pruned, each with all kernels that lose a column with a channel.

        Args:
          shapes: tree of kernels, or of their shapes.

        Returns:
          The layers, in the order of the scores' leaves.

        Raises:
          UserError: channels of a kernel are fixed, or shared with a kernel that `shapes` lacks.
          ValueError: `channels` lacks a kernel, or coupled kernels differ in their number of output channels.
        """
        coupled = [(_kernels(each), each.width, each.fixed) for each in self.channels]
        strangers = trees.named_leaves(shapes).keys() - {kernel for kernels, _, _ in coupled for kernel in kernels}
        if strangers:
            raise ValueError(f"the channels of {', '.join(sorted(strangers))} are not known")
        named = layers.layers(self.granularity, shapes, coupled)
        return tuple(sorted(named, key=lambda layer: layer.leaves[0]))

    def scored(self, kernels: PyTree) -> PyTree:
        """Makes an open gate, 1, for each channel; see `Pattern.scored`.

        Args:
          kernels: the prunable kernels.

        Returns:
          A tree of vectors.

        Raises:
          UserError: see `layers`.
          ValueError: see `layers`.
        """
        return self._per_tensor(kernels, lambda layer, leaves: jnp.ones(layer.groups, leaves[0].dtype))

    def magnitude(self, kernels: PyTree) -> PyTree:
        """Computes the mean |w| of each channel's columns in all its kernels; see `Pattern.magnitude`.

        Args:
          kernels: the prunable kernels.

        Returns:
          A tree like `scored`.

        Raises:
          UserError: see `layers`.
          ValueError: see `layers`.
        """
        return self._per_tensor(kernels, lambda layer, leaves: layer.mean(leaves))

    def first_scores(self, kernels: PyTree) -> PyTree:
        """Makes initial scores: evenly spaced in each layer, in the order of the channels' magnitudes.

        Their mean is that of the scaled weights. Magnitudes themselves are no good initial scores, even if they are
        leveled: means of many weights differ so little within a layer that one threshold would empty some layers and
        keep others whole from the start.

        Args:
          kernels: the prunable kernels.

        Returns:
          A tree like `scored`.

        Raises:
          UserError: see `layers`.
          ValueError: see `layers`.
        """
        sizes = self.magnitude(scaled_init(kernels))
        mean = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(sizes)) / sum(leaf.size for leaf in jax.tree.leaves(sizes))
        return jax.tree.map(lambda leaf: 2 * mean * (jnp.argsort(jnp.argsort(leaf)) + 0.5) / leaf.size, sizes)

    def select(self, scores: PyTree, amount: Any, *, signed: bool = False) -> PyTree:
        """Keeps the channels with the largest scores; see `Pattern.select`.

        Args:
          scores: a tree like `scored`.
          amount: from `amount`.
          signed: whether the largest scores are kept instead of the largest magnitudes.

        Returns:
          A tree like `scores`, bool.
        """
        return self.ranking.select(scores, amount, signed=signed)

    def put(self, weights: PyTree, scored: PyTree) -> PyTree:
        """Applies the gates to the weights; see `Pattern.put`."""
        return masks.apply(weights, self.gate(scored, weights))

    def gate(self, values: PyTree, weights: PyTree) -> PyTree:
        """Spreads each channel's value over the parameters that end the channel; see `Pattern.gate`."""
        return self._spread(values, weights, lambda each: [path for writer in each.writers for path in _ends(writer)])

    def mask(self, keep: PyTree, weights: PyTree) -> PyTree:
        """Spreads each channel's bool over all parameters that belong to the channel; see `Pattern.mask`."""
        return self._spread(keep, weights, channel_parts)

    def kept(self, mask: PyTree) -> PyTree:
        """Reads from a mask which channels it keeps; see `Pattern.kept`."""
        leaves, keep = trees.named_leaves(mask), {}
        for each in self.channels:
            if _name(each) in leaves:
                # All elements of a column are equal.
                column = leaves[_name(each)]
                keep[_name(each)] = column.reshape(-1, column.shape[-1])[0, :: each.width]
        return trees.unflatten(keep)

    def _per_tensor(self, kernels: PyTree, vector: Callable[[Layer, list[Any]], Any]) -> PyTree:
        """A tree of vectors, each at the path of the first writer's kernel."""
        named = trees.named_leaves(kernels)
        paths, leaves = list(named), list(named.values())
        return trees.unflatten({paths[layer.leaves[0]]: vector(layer, leaves) for layer in self.layers(kernels)})

    def _spread(self, values: PyTree, weights: PyTree, chosen: Callable[[Channels], list[str]]) -> PyTree:
        """Spreads each vector over the columns of the weights at the chosen paths."""
        vectors, shapes = trees.named_leaves(values), trees.named_leaves(weights)
        spread: dict[str, jax.Array] = {}
        for each in self.channels:
            if _name(each) in vectors:
                columns = jnp.repeat(vectors[_name(each)], each.width)
                spread |= {path: jnp.broadcast_to(columns, shapes[path].shape) for path in chosen(each)}
        return trees.unflatten(spread)


def _name(channels: Channels) -> str:
    return channels.writers[0].kernel


def _kernels(channels: Channels) -> tuple[str, ...]:
    return tuple(layer.kernel for layer in (*channels.writers, *channels.companions))


def _ends(writer: Writer) -> list[str]:
    """The parameters that end a writer's channels: those of its batch normalization or, without one, its own."""
    if writer.norm:
        return [f"{writer.norm}/scale", f"{writer.norm}/bias"]
    return [path for path in (writer.kernel, writer.bias) if path]


def channel_parts(channels: Channels) -> list[str]:
    """Lists all parameters that belong to channels.

    Args:
      channels: the channels of one tensor.

    Returns:
      Paths of the parameters that have a column, or an element, for each channel.
    """
    writers = (*channels.writers, *channels.companions)
    paths = (path for writer in writers for path in (writer.kernel, writer.bias, *_ends(writer)))
    return list(dict.fromkeys(path for path in (*paths, *channels.vectors) if path))
