"""Every data set by its name."""

import dataclasses
import json
from collections.abc import Callable

from vpns_jax.data import bundled, folder, fonts, tfds_sets
from vpns_jax.data.dataset import Dataset
from vpns_jax.data.decoding import DEFAULT, DecodeOptions
from vpns_jax.data.materialize import BUDGET_BYTES, materialize, resident_bytes
from vpns_jax.data.source import Original, Sources, with_validation
from vpns_jax.errors import UserError, check_name

BUNDLED: dict[str, Callable[[], Original]] = {
    "digits": bundled.digits,
    "fonts62": fonts.fonts62,
    "mnist5k": bundled.mnist5k,
}


def names() -> tuple[str, ...]:
    """The data sets that have a name; `folder:/path` is known besides."""
    return (*BUNDLED, *tfds_sets.ENTRIES)


def check(name: str) -> None:
    """Raises `UserError` listing the known names unless `name` is a data set; looks at no data."""
    if name.startswith(folder.PREFIX):
        folder.check(name)
    else:
        check_name("data set", name, (*names(), f"{folder.PREFIX}/path/to/images"))


def identity(name: str, options: DecodeOptions = DEFAULT) -> str:
    """What tells the pixels of a data set from others of the same name: its files, and how they are decoded."""
    asked = json.dumps(dataclasses.asdict(options))
    if name.startswith(folder.PREFIX):
        return f"{folder.identity(name)} {asked}"
    # Bundled sets are arrays; the files of the others do not change.
    return name if name in BUNDLED or options == DEFAULT else f"{name} {asked}"


def open_sources(
    name: str,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    data_dir: str | None = None,
    options: DecodeOptions = DEFAULT,
) -> Sources:
    """The data set `name`, its images not yet decoded; arguments and errors as `load`'s."""
    check(name)
    if name in BUNDLED:
        original = BUNDLED[name]()
    elif name.startswith(folder.PREFIX):
        original = folder.open_folder(name, options)
    else:
        original = tfds_sets.open_tfds(name, options, data_dir=data_dir)
    return with_validation(original, name, val_fraction=val_fraction, seed=seed)


def load(
    name: str,
    *,
    image_size: int,
    val_fraction: float = 0.1,
    seed: int = 0,
    data_dir: str | None = None,
    options: DecodeOptions = DEFAULT,
    budget_bytes: int = BUDGET_BYTES,
) -> Dataset:
    """The data set `name` in memory, all images square of `image_size`.

    Args:
      name: one of `names()`, or `folder:/path` (see `folder.py`).
      image_size: what the images are resized to (PIL, antialiased bilinear), at least 1.
      val_fraction: share of each class of train that is held out for validation, in (0, 1); a data set that brings
        a validation split of its own keeps that.
      seed: of the draw of the validation split; the same seed gives the same split.
      data_dir: where data sets are prepared; by default $TFDS_DATA_DIR, or ~/tensorflow_datasets.
      options: how image files become pixels; sets that are arrays in a package have none.
      budget_bytes: the most that the arrays may take together.

    Raises:
      UserError: an unknown name, a missing package, a data set that is not prepared or does not fit the budget, a
        fraction outside (0, 1).
    """
    sources = open_sources(name, val_fraction=val_fraction, seed=seed, data_dir=data_dir, options=options)
    needed = resident_bytes(sources, image_size=image_size)
    if needed > budget_bytes:
        raise UserError(
            f"data set {name!r} at {image_size} px takes {needed / 2**30:.1f} GiB, and the budget is "
            f"{budget_bytes / 2**30:.1f} GiB; raise the budget, take smaller images, or stream it from the host"
        )
    return materialize(sources, image_size=image_size)
