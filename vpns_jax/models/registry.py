"""Every network by name: its module, its options, and where its default weights come from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from vpns_jax.errors import UserError, check_name
from vpns_jax.models.resnet import ResNet

Colour = tuple[float, float, float]

IMAGENET: tuple[Colour, Colour] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclasses.dataclass(frozen=True)
class Entry:
    """A network.

    Attributes:
      module: its class.
      architecture: the fields of `module` that make it this network.
      options: the fields a caller may set, beside `num_classes`, each with the values allowed
        (a tuple of values, or a type).
      source: hub id of its default weights; None if none were published.
      normalisation: per-channel (mean, std) of the inputs that those weights expect.
    """

    module: type[nn.Module]
    architecture: Mapping[str, Any]
    options: Mapping[str, Any]
    source: str | None
    normalisation: tuple[Colour, Colour]


def _resnet(depths: tuple[int, ...], block: str, source: str) -> Entry:
    options = {"width": float, "stem": ("imagenet", "small"), "dtype": object}
    return Entry(ResNet, {"depths": depths, "block": block}, options, source, IMAGENET)


ENTRIES: dict[str, Entry] = {
    "resnet18": _resnet((2, 2, 2, 2), "basic", "hf://timm/resnet18.tv_in1k"),
    "resnet34": _resnet((3, 4, 6, 3), "basic", "hf://timm/resnet34.tv_in1k"),
    "resnet50": _resnet((3, 4, 6, 3), "bottleneck", "hf://timm/resnet50.tv_in1k"),
}


def names() -> tuple[str, ...]:
    """The names `create` knows."""
    return tuple(ENTRIES)


def entry(name: str) -> Entry:
    """The registry's entry of that name. Raises `UserError` listing the known names if there is none."""
    check_name("model", name, names())
    return ENTRIES[name]


def create(name: str, *, num_classes: int = 1000, **options: Any) -> nn.Module:
    """A network as an unbound Flax Linen module.

    `model.init(rng, images)` makes fresh variables; `model.apply(variables, images, train=False)` maps
    normalised float images `[b, h, w, 3]` to float32 logits `[b, num_classes]`. With `train=True`, batch
    normalisation uses the batch's statistics (and updates `batch_stats` where that is mutable) and dropout
    draws from the rng called "dropout".

    Args:
      name: one of `names()`.
      num_classes: number of logits, >= 1.
      **options: all take `dtype`, the computation's dtype (parameters stay float32); ResNets `width` (a
        factor on the channels) and `stem` ("imagenet" or "small").

    Raises:
      UserError: for an unknown name, option or value; lists those allowed.
    """
    spec = entry(name)
    if num_classes < 1:
        raise UserError(f"num_classes must be at least 1, got {num_classes}")
    for key, value in options.items():
        check_name(f"option of {name}", key, tuple(spec.options))
        allowed = spec.options[key]
        if isinstance(allowed, tuple) and value not in allowed:
            raise UserError(f"{name}: {key} must be one of {allowed}, got {value!r}")
        if allowed is float and not (isinstance(value, int | float) and value > 0):
            raise UserError(f"{name}: {key} must be a positive number, got {value!r}")
    return spec.module(num_classes=num_classes, **spec.architecture, **options)


def normalisation(name: str) -> tuple[Colour, Colour]:
    """Per-channel (mean, std), on the scale [0, 1], that the default weights of `name` expect."""
    return entry(name).normalisation


def default_source(name: str) -> str:
    """Hub id of the default weights of `name`. Raises `UserError` if none were published."""
    source = entry(name).source
    if source is None:
        raise UserError(f"{name} has no published weights: name a file or a hub id")
    return source
