"""The groups of the network: the backbone, and how its weights are trained here."""

import dataclasses
from typing import Any

from vpns_jax import models
from vpns_jax.errors import UserError, short
from vpns_jax.experiment import ranges
from vpns_jax.options import EPOCHS, Range, at, option
from vpns_jax.training.optimizers import Optimizer, sgd


def _model_name(value: str, path: str) -> None:
    models.entry(value)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The backbone, its weights, and which of them may be pruned."""

    name: str = option(
        "resnet18",
        'A network of docs/models.md, or "module:function" or "file.py:function" for a function that makes a network '
        "of your own; docs/your_own.md says how.",
        _model_name,
    )
    options: dict[str, Any] = option(
        {},
        "Options of the network; docs/models.md lists those of each network. Options that are not set have defaults.",
    )
    weights: str = option(
        "default",
        'A local file, a hub id such as "hf://timm/resnet18.tv_in1k", "default" for the published weights of the '
        'network (those that a network of your own loads), or "pretrain" to train the source network here.',
        ranges.maybe_path,
    )
    weights_key: str = option(
        "",
        'Which weights to load from a file that holds several: an entry, such as "model_ema", or a prefix of names.',
    )
    ignore: tuple[str, ...] = option((), "Globs over tensors of the file that are not loaded.")
    dont_load: tuple[str, ...] = option(
        (), 'Globs over parameters of the network that are initialized instead of loaded, such as "head".'
    )
    mean: tuple[float, ...] = option(
        (),
        "The mean of each channel, which is subtracted from images in [0, 1]. () takes the values that the weights "
        "were trained with: from a config.json beside them, or those of the network's published weights.",
        Range(-1000, 1000, "images lie in [0, 1]"),
    )
    std: tuple[float, ...] = option(
        (),
        "The standard deviation of each channel, which images are then divided by; set it together with mean.",
        Range(0, 1000, "", "(]"),
    )
    prune_include: tuple[str, ...] = option(
        (), 'Globs over paths of kernels that may be pruned, such as ("layer4_*",); () means all.'
    )
    prune_exclude: tuple[str, ...] = option((), "Globs over paths of kernels that stay dense.")

    def check(self, path: str) -> None:
        """Checks that the model takes its options and that the keys about its weights agree.

        Args:
          path: the name of this group, such as "config.model".

        Raises:
          UserError: the model does not take an option, only one of `mean` and `std` is set, or a key about a file of
            weights is set although no file is read.
        """
        with at(f"{path}.options"):
            models.check_option_names(self.name, self.options)
            models.create(self.name, **self.options)
        if self.mean or self.std:
            try:
                models.check_normalization(self.mean, self.std)
            except UserError as error:
                raise UserError(f"{path}.{error}, or () with the other") from error
        for key in ("weights_key", "ignore", "dont_load"):
            if self.weights == "pretrain" and getattr(self, key):
                raise UserError(
                    f"{path}.{key} is {short(getattr(self, key))}; no file is read where weights is 'pretrain'"
                )


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """How the source network is trained here."""

    data: str = option("fonts62", "The source data set; it must have at least as many classes as the downstream one.")
    epochs: int = option(20, "Epochs of training.", EPOCHS)
    batch_size: int = option(128, "Images in a batch, over all devices together.", ranges.BATCH_SIZE)
    seed: int = option(0, "The seed of the initial weights and of the order of the images.", ranges.SEED)
    weights: Optimizer = option(sgd(0.05), "The optimizer of the weights.")
