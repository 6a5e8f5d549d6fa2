"""How a network's inputs are normalized. This depends on how its weights were trained, not on its architecture."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

from vpns_jax.errors import LONGEST, UserError, shorten
from vpns_jax.models import hub
from vpns_jax.models.own import Color
from vpns_jax.models.registry import ALIASES, IMAGENET, Entry, create, entry, normalization

# The files in which timm and transformers keep mean and std, and the keys of both.
FILES = {"config.json": ("mean", "std"), "preprocessor_config.json": ("image_mean", "image_std")}
MAX_BYTES = 10_000_000
# Layouts whose publisher always uses the same normalization, whatever the network's default weights expect.
OF_LAYOUT = {"vit_torchvision": IMAGENET, "vit_torchvision_old": IMAGENET}


@dataclasses.dataclass(frozen=True)
class Normalization:
    """How images in [0, 1] are normalized: (x - mean) / std, by channel.

    Attributes:
      mean: for red, green and blue.
      std: for red, green and blue.
      origin: where both come from, a clause.
    """

    mean: Color
    std: Color
    origin: str

    def __str__(self) -> str:
        mean, std = (", ".join(f"{x:.4g}" for x in values) for values in (self.mean, self.std))
        return f"mean ({mean}), std ({std}), {self.origin}"


def find_normalization(
    name: str, source: str | os.PathLike[str] | None = None, *, layout: str | None = None, **options: Any
) -> Normalization:
    """How the inputs of a network with these weights are normalized.

    The first source that says so: timm's `config.json` or transformers' `preprocessor_config.json` beside the
    weights; the publisher of the weights' layout; the network's default weights.

    Args:
      name: the network's name, as for `create`.
      source: the source of its weights, as for `load_pretrained`; None for the default weights.
      layout: the weights' layout, as in `Pretrained.layout`, if it is known.
      **options: the network's options, as for `create`.

    Returns:
      The normalization.

    Raises:
      UserError: a file beside the weights is damaged or belongs to another network, or the hub cannot be reached.
    """
    spec = entry(name)
    published = spec.source if isinstance(spec, Entry) else None
    if source is not None and source != published:
        for file, keys in FILES.items():
            try:
                path = hub.beside(source, file)
            except UserError as error:
                raise UserError(shorten(f"{error}; or set model.mean and model.std", LONGEST)) from error
            mean_std = None if path is None else _read(path, name, keys)
            if mean_std is not None:
                return Normalization(*mean_std, f"as {file} beside the weights says")
        if layout in OF_LAYOUT:
            return Normalization(*OF_LAYOUT[layout], "which torchvision's ViTs are trained with")
    try:
        mean_std = check_normalization(*normalization(name, **options))
    except UserError as error:
        raise UserError(f"model {name}: {error}") from error
    return Normalization(*mean_std, f"which default weights of {name} expect")


def _read(path: Path, name: str, keys: tuple[str, str]) -> tuple[Color, Color] | None:
    """(mean, std) of a file; None if it has neither."""
    mend = "mend or remove it, or set model.mean and model.std"
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({shorten(str(error), 80)}); {mend}") from error
    config = config if isinstance(config, dict) else {}
    # Older versions of timm wrote these keys at the top level, beside the architecture.
    inner = config.get("pretrained_cfg", config)
    mean, std = [inner.get(key) for key in keys] if isinstance(inner, dict) else [None, None]
    if mean is None and std is None:
        return None
    architecture = config.get("architecture")
    if isinstance(architecture, str) and _differ(architecture, name):
        raise UserError(f"{path} is of {shorten(architecture, 50)}, not of {name}; {mend}")
    try:
        return check_normalization(mean, std)
    except UserError as error:
        raise UserError(f"{path}: {error}; {mend}") from error


def _differ(architecture: str, name: str) -> bool:
    """Whether timm's name is known as that of another network. A DeiT without a distillation token is a ViT."""
    return architecture in ALIASES and (name not in ALIASES or create(architecture) != create(name))


def check_normalization(mean: Any, std: Any) -> tuple[Color, Color]:
    """Checks a mean and a standard deviation.

    Args:
      mean: the means of the three channels, in [0, 1].
      std: the standard deviations of the three channels, at least 0.001 and at most 1.

    Returns:
      Both as triples of floats.

    Raises:
      UserError: they are no such numbers.
    """
    for what, values, least in (("mean", mean, 0.0), ("std", std, 1e-3)):
        numbers = isinstance(values, list | tuple) and all(
            isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in values
        )
        if not numbers or len(values) != 3 or not all(least <= x <= 1 for x in values):
            raise UserError(f"{what} is {shorten(repr(values), 80)}; it must be three numbers in [{least:g}, 1]")
    r, g, b = map(float, mean)
    x, y, z = map(float, std)
    return (r, g, b), (x, y, z)
