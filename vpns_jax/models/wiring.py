"""What a channel is: the layers that write it, and the layers that read it. `coupling.channels` finds them.

Where a residual connection adds the outputs of two layers, channel i of the sum is zero only if channel i of both
outputs is. So all layers that write to the same sum are writers of the same channels.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit, ndtr

from vpns_jax.models.norm import EPSILON

Activation = Callable[[np.ndarray], np.ndarray]


def identity(x: np.ndarray) -> np.ndarray:
    """The activation of channels that readers see as writers leave them."""
    return x


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(x, 0)


def gelu(x: np.ndarray) -> np.ndarray:
    """The exact GELU, x * Phi(x)."""
    return x * ndtr(x)


def tanh_gelu(x: np.ndarray) -> np.ndarray:
    """The approximate GELU, which is Flax's default."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x: np.ndarray) -> np.ndarray:
    """The function x * sigmoid(x)."""
    return x * expit(x)


def relu6(x: np.ndarray) -> np.ndarray:
    """min(max(x, 0), 6)."""
    return np.clip(x, 0, 6)


def keeps_zero(x: np.ndarray) -> np.ndarray:
    """Any function of which no more is known: zero stays zero, and what other constants become is unknown, NaN."""
    return np.where(x == 0, 0.0, np.nan)


class Writer(NamedTuple):
    """A layer whose outputs are the channels. Paths are "/"-joined and relative to `params`.

    Attributes:
      kernel: path of the kernel `[..., c]`; the channels are its last axis.
      bias: path of the layer's bias `[c]`; "" if it has none.
      norm: path of the batch normalization that directly follows, with `scale` and `bias` `[c]`, and with statistics
        under the same path; "" if there is none. A channel is zero if its scale and bias here are zero; without batch
        normalization, if its column of the kernel and its bias are zero.
      epsilon: what that normalization adds to the variance.
    """

    kernel: str
    bias: str = ""
    norm: str = ""
    epsilon: float = EPSILON


class Reader(NamedTuple):
    """A layer whose inputs are the channels.

    Attributes:
      kernel: path of the kernel `[..., c, o]`; the channels are its last axis but one.
      positions: how many times that axis repeats all channels; above 1 for a feature map that was flattened.
      offset: the first channel's place in each repetition; above 0 if other channels are concatenated before these.
      padded: whether it is a convolution that pads its input with zeros.
      sums: how many writers, from the first on, add to what it reads; None for all.
    """

    kernel: str
    positions: int = 1
    padded: bool = False
    sums: int | None = None
    offset: int = 0


class Channels(NamedTuple):
    """The channels of one tensor between layers. A channel is pruned for all its writers and readers, or for none.

    A channel that all its writers leave zero is zero for its readers, too, for any input: between writers and readers
    there are only sums, an activation that keeps zero, pooling, attention's weighted means and dropout. So the channel
    can be removed from writers and readers. All but sums and activation keep a constant channel as it is.

    A depthwise convolution is a writer of the channels that it also reads: each of its filters belongs to one channel.
    Channels with such writers have the activation `keeps_zero`.

    Attributes:
      writers: the layers that write the channels; if there are several, their outputs are added in this order.
      readers: the layers that read the channels; none are listed where no channel may be pruned.
      width: how many consecutive channels are pruned together, such as those of an attention head.
      companions: layers whose outputs are useless without these channels, although they do not write to them: queries
        and keys are companions of a head's values. They have as many outputs as there are channels.
      fixed: why no channel may be pruned; "" if channels may be pruned.
      activation: the function between writers and readers; in a residual sum, it follows each point that is read.
      vectors: paths of parameters `[c]` that scale the channels on their way, such as layer scales.
    """

    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...] = ()
    width: int = 1
    companions: tuple[Writer, ...] = ()
    fixed: str = ""
    activation: Activation = identity
    vectors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The path of the first writer's kernel, which is unique among all channels of a network."""
        return self.writers[0].kernel

    @property
    def kernels(self) -> tuple[str, ...]:
        """Paths of all kernels that lose a column when a channel is pruned, those of writers first."""
        return tuple(writer.kernel for writer in (*self.writers, *self.companions))
