"""A network of your own in a whole experiment: a small ConvNeXt, pruned by three methods, with a report.

    python main.py --config=examples/own_network.py --workdir=runs/own_network

It shows how a network is written, not what one reaches: after so few epochs it knows a fifth of the characters, and a
fifth of the digits. On two busy CPU cores it takes more than ten minutes, most of it in XLA's convolutions.

Run it with the extra `bundled`, which has the digits. The network is first trained on printed characters; with a
checkpoint of your own, give `OwnModel` a function that reads it as `load=`, and leave `config.model.weights` alone.
"""

from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from configs import default, quickstart
from vpns_jax import models


class Net(nn.Module):
    """Your network: a ConvNeXt (arXiv 2201.03545) of one stage, with 3x3 kernels for maps of 8 x 8.

    Attributes:
      num_classes: the number of logits.
      width: the number of channels.
      depth: the number of blocks.
      widths: pairs (layer, outputs) of layers that `shrink` has made narrower; only networks to be shrunk need it.
    """

    num_classes: int
    width: int = 32
    depth: int = 2
    widths: tuple[tuple[str, int], ...] = ()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Computes logits [b, num_classes] of images [b, h, w, 3]."""
        del train  # There is neither dropout nor batch normalization in it.
        x = nn.LayerNorm(name="stem_norm")(nn.Conv(self.width, (4, 4), strides=4, name="stem")(images))
        for i in range(self.depth):
            y = nn.Conv(self.width, (3, 3), feature_group_count=self.width, name=f"depthwise_{i}")(x)
            y = nn.LayerNorm(name=f"norm_{i}")(y)
            hidden = dict(self.widths).get(f"expand_{i}", 4 * self.width)
            y = nn.gelu(nn.Dense(hidden, name=f"expand_{i}")(y))
            y = nn.Dense(self.width, name=f"reduce_{i}")(y)
            x = x + y * self.param(f"gamma_{i}", nn.initializers.constant(0.1), (self.width,))
        return nn.Dense(self.num_classes, name="classifier")(nn.LayerNorm(name="norm")(x.mean((1, 2))))


def make_model(num_classes: int, **options: Any) -> models.OwnModel:
    """Makes the network; `config.model.name` names this function.

    Args:
      num_classes: the number of logits.
      **options: what stands in `config.model.options`.

    Returns:
      The network, the name of its last layer, and the normalization of its images.
    """
    return models.OwnModel(Net(num_classes, **options), head="classifier", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def get_config() -> ConfigDict:
    """Makes the config.

    Returns:
      A new config, which the caller may change.
    """
    config = quickstart.get_config()
    config.name = "own_network"
    config.methods = ("vpns", "magnitude", "synflow")
    config.densities = (0.1,)
    config.model.name = "examples.own_network:make_model"
    config.model.options = ConfigDict({"width": 32, "depth": 2})
    # Networks with layer normalization learn slowly by SGD.
    config.pretrain.weights = default.adam(3e-3)
    config.retrain.weights = default.adam(1e-3)
    return config
