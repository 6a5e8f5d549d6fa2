"""All networks by name: their modules, options and default weights. CONTRIBUTING.md says what else a new one needs.

A name is one of the table below, or that of a function of the user's, which makes a network of one's own (`own.py`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vpns_jax import references
from vpns_jax.errors import UserError, check_name, short
from vpns_jax.models.convnext import ConvNeXt
from vpns_jax.models.deit import DeiT
from vpns_jax.models.option_checks import check_option, check_widths
from vpns_jax.models.own import Color, Factory
from vpns_jax.models.resnet import ResNet
from vpns_jax.models.vgg import VGG
from vpns_jax.models.vit import ViT
from vpns_jax.models.widths import freeze

IMAGENET: tuple[Color, Color] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES: tuple[Color, Color] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclasses.dataclass(frozen=True)
class Entry:
    """A network.

    Attributes:
      module: the class of its module, which stands for its family.
      architecture: the values of the module's fields that define this network.
      options: names of the fields that a caller may set, in addition to `num_classes`.
      source: hub id of its default weights; None if no weights were published.
      normalization: per-channel (mean, std) of the inputs that those weights expect.
    """

    module: type[nn.Module]
    architecture: Mapping[str, Any]
    options: tuple[str, ...]
    source: str | None
    normalization: tuple[Color, Color]

    def create(self, name: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
        """Makes the module.

        Args:
          name: the network's name, for errors.
          num_classes: the number of logits.
          options: values by option, without `widths`.

        Returns:
          The module, with the standard widths.

        Raises:
          UserError: a value is not allowed.
        """
        for key, value in options.items():
            check_option(name, key, value)
        typed = {key: jnp.dtype(value) if key == "dtype" else value for key, value in options.items()}
        return self.module(num_classes=num_classes, **self.architecture, **typed)


def _resnet(depths: tuple[int, ...], block: str, source: str | None) -> Entry:
    architecture = {"depths": depths, "block": block}
    return Entry(ResNet, architecture, ("width", "stem", "dtype", "widths"), source, IMAGENET)


def _vgg16(batch_norm: bool, source: str) -> Entry:
    stages = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
    architecture = {"stages": stages, "batch_norm": batch_norm}
    return Entry(VGG, architecture, ("width", "dropout", "dtype", "widths"), source, IMAGENET)


def _vit(features: int, depth: int, patch: int, source: str | None) -> Entry:
    architecture = {"features": features, "depth": depth, "patch": patch}
    return Entry(ViT, architecture, ("dropout", "dtype", "widths"), source, HALVES)


def _deit(features: int, source: str, *, distilled: bool) -> Entry:
    """A network of DeiT: without a distillation token it is a ViT, but with other default weights."""
    plain = dataclasses.replace(_vit(features, 12, 16, source), normalization=IMAGENET)
    return dataclasses.replace(plain, module=DeiT) if distilled else plain


def _convnext(depths: tuple[int, ...], source: str) -> Entry:
    return Entry(ConvNeXt, {"depths": depths}, ("width", "dtype", "widths"), source, IMAGENET)


# fmt: off
ENTRIES: dict[str, Entry] = {
    "resnet10": _resnet((1, 1, 1, 1), "basic", None),
    "resnet18": _resnet((2, 2, 2, 2), "basic", "hf://timm/resnet18.tv_in1k"),
    "resnet34": _resnet((3, 4, 6, 3), "basic", "hf://timm/resnet34.tv_in1k"),
    "resnet50": _resnet((3, 4, 6, 3), "bottleneck", "hf://timm/resnet50.tv_in1k"),
    "vgg16": _vgg16(False, "hf://timm/vgg16.tv_in1k"),
    "vgg16_bn": _vgg16(True, "hf://timm/vgg16_bn.tv_in1k"),
    "vit_ti16": _vit(192, 12, 16, "hf://timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
    "vit_ti32": _vit(192, 12, 32, None),
    "vit_s16": _vit(384, 12, 16, "hf://timm/vit_small_patch16_224.augreg_in21k_ft_in1k"),
    "vit_s32": _vit(384, 12, 32, "hf://timm/vit_small_patch32_224.augreg_in21k_ft_in1k"),
    "vit_b16": _vit(768, 12, 16, "hf://timm/vit_base_patch16_224.augreg_in21k_ft_in1k"),
    "vit_b32": _vit(768, 12, 32, "hf://timm/vit_base_patch32_224.augreg_in21k_ft_in1k"),
    "vit_l16": _vit(1024, 24, 16, "hf://timm/vit_large_patch16_224.augreg_in21k_ft_in1k"),
    # Published for 384 px only; for another size, loading resizes its position embeddings.
    "vit_l32": _vit(1024, 24, 32, "hf://timm/vit_large_patch32_384.orig_in21k_ft_in1k"),
    "deit_ti16": _deit(192, "hf://timm/deit_tiny_patch16_224.fb_in1k", distilled=False),
    "deit_s16": _deit(384, "hf://timm/deit_small_patch16_224.fb_in1k", distilled=False),
    "deit_b16": _deit(768, "hf://timm/deit_base_patch16_224.fb_in1k", distilled=False),
    "deit_ti16_distilled": _deit(192, "hf://timm/deit_tiny_distilled_patch16_224.fb_in1k", distilled=True),
    "deit_s16_distilled": _deit(384, "hf://timm/deit_small_distilled_patch16_224.fb_in1k", distilled=True),
    "deit_b16_distilled": _deit(768, "hf://timm/deit_base_distilled_patch16_224.fb_in1k", distilled=True),
    "convnext_tiny": _convnext((3, 3, 9, 3), "hf://timm/convnext_tiny.fb_in1k"),
}
# fmt: on

# timm's names for the same networks; its names for ResNets, VGGs and ConvNeXts are the same as here.
ALIASES = {
    "vit_tiny_patch16_224": "vit_ti16",
    "vit_small_patch16_224": "vit_s16",
    "vit_small_patch32_224": "vit_s32",
    "vit_base_patch16_224": "vit_b16",
    "vit_base_patch32_224": "vit_b32",
    "vit_large_patch16_224": "vit_l16",
    "vit_large_patch32_384": "vit_l32",
    "deit_tiny_patch16_224": "deit_ti16",
    "deit_small_patch16_224": "deit_s16",
    "deit_base_patch16_224": "deit_b16",
    "deit_tiny_distilled_patch16_224": "deit_ti16_distilled",
    "deit_small_distilled_patch16_224": "deit_s16_distilled",
    "deit_base_distilled_patch16_224": "deit_b16_distilled",
} | {name: name for name in ENTRIES}

# Networks that timm does not have.
NOT_IN_TIMM = frozenset({"resnet10", "vit_ti32"})


def names() -> tuple[str, ...]:
    """The names that `create` knows."""
    return tuple(ENTRIES)


def accepted_names() -> tuple[str, ...]:
    """`names()`, and timm's names for the same networks."""
    return (*names(), *(name for name in ALIASES if name not in ENTRIES))


def timm_name(name: str) -> str:
    """The name of a network in timm; its name here if timm does not have it, see `NOT_IN_TIMM`."""
    return next((timm for timm, ours in ALIASES.items() if ours == ALIASES.get(name)), name)


def is_own(name: str) -> bool:
    """Whether a name is that of a function that makes a network of one's own, which creating the network runs."""
    return references.is_reference(name)


def entry(name: str) -> Entry | Factory:
    """What makes a network: the one door for all names.

    Args:
      name: one of `names()`, timm's name for it, or `module:function` or `file.py:function` for a network of one's own.

    Returns:
      The registry's entry, or the function.

    Raises:
      UserError: the name is unknown (the error lists the known names), or the function cannot be imported.
    """
    if is_own(name):
        return Factory.named(name)
    name = ALIASES.get(name, name)
    check_name("model", name, (*names(), "my_module:make_model"))
    return ENTRIES[name]


def create(name: str, *, num_classes: int = 1000, **options: Any) -> nn.Module:
    """A network as an unbound Flax Linen module.

    `model.init(rng, images)` makes fresh variables; `model.apply(variables, images, train=False)` maps
    normalized float images `[b, h, w, 3]` to float32 logits `[b, num_classes]`. With `train=True`, batch
    normalization uses the batch's statistics (and updates `batch_stats` where that is mutable) and dropout
    draws from the rng called "dropout".

    Args:
      name: one of `names()`, timm's name for it, such as "vit_tiny_patch16_224", or for a network of one's own
        `module:function` or `file.py:function` (see `OwnModel`), which runs that code.
      num_classes: number of logits, >= 1.
      **options: `dtype`, the computation's dtype (parameters stay float32), for all networks; `width`, a factor on
        the channels, for ResNets, VGGs and ConvNeXts; `stem`, "imagenet" or "small", for ResNets; `dropout`, a rate,
        for VGGs and ViTs; `widths`, a mapping from layers to their numbers of outputs, for networks that were shrunk.
        For a network of one's own, `widths` and the arguments of its function.

    Returns:
      The module.

    Raises:
      UserError: a name, option or value is unknown; the error lists the allowed ones.
    """
    if num_classes < 1:
        raise UserError(f"num_classes must be at least 1, got {num_classes}")
    spec = entry(name)
    if isinstance(spec, Entry):
        for key in options:
            check_name(f"option of {name}", key, spec.options)
    widths = options.pop("widths", {})
    check_option(name, "widths", widths)
    model = spec.create(name, num_classes, options)
    if not widths:
        return model
    check_widths(name, model, widths)
    return model.clone(widths=freeze(widths))


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are arguments of the user's function: all but `widths`, which `create` gives to its module."""
    return {key: value for key, value in options.items() if key != "widths"}


def normalization(name: str, **options: Any) -> tuple[Color, Color]:
    """The normalization that the default weights of a network expect.

    Args:
      name: as for `create`.
      **options: as for `create`; they matter to networks of one's own alone.

    Returns:
      Mean and standard deviation of each channel, of images in [0, 1].

    Raises:
      UserError: as `create`.
    """
    spec = entry(name)
    if isinstance(spec, Entry):
        return spec.normalization
    own = spec(1, _arguments(options))
    return own.mean, own.std


# The function's name in version 0.1, kept for one release.
normalisation = normalization


def options(name: str) -> tuple[str, ...]:
    """The options that `create` takes for `name`, beside `num_classes`."""
    return entry(name).options


def default_source(name: str) -> str:
    """The hub id of a network's default weights.

    Args:
      name: one of `names()`, or timm's name for it.

    Returns:
      The hub id.

    Raises:
      UserError: the name is unknown, or no weights were published.
    """
    spec = entry(name)
    if isinstance(spec, Factory):
        raise UserError(
            f"model {short(name)} has no pretrained weights of its own: let it return OwnModel(module, load=...), name "
            "a file, or train it here by model.weights=pretrain"
        )
    if spec.source is None:
        raise UserError(f"{name} has no published weights: name a file or a hub id")
    return spec.source


def own_weights(name: str, **options: Any) -> dict[str, Any] | None:
    """The pretrained variables that a network of one's own loads itself.

    Args:
      name: as for `create`.
      **options: as for `create`.

    Returns:
      NumPy arrays as nested dicts; None for all other networks, and for those without a loader.

    Raises:
      UserError: as `create`, or the loader fails.
    """
    spec = entry(name)
    return spec.load(_arguments(options)) if isinstance(spec, Factory) else None


def own_code(name: str, **options: Any) -> tuple[Path, ...]:
    """The files with a network of one's own: that of its function, and that of its module's class.

    Args:
      name: as for `create`.
      **options: as for `create`.

    Returns:
      The files; none for all other networks.

    Raises:
      UserError: as `create`.
    """
    spec = entry(name)
    if isinstance(spec, Entry):
        return ()
    files = {references.source(part) for part in (spec.make, type(spec(1, _arguments(options)).module))}
    return tuple(sorted(file for file in files if file is not None))
