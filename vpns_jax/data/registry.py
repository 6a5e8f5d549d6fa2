"""Every data set by its name."""

from collections.abc import Callable

from vpns_jax.data import bundled, folder, fonts, tfds_sets
from vpns_jax.data.dataset import Dataset
from vpns_jax.data.decoding import DEFAULT, DecodeOptions
from vpns_jax.data.materialize import BUDGET_BYTES, materialize, resident_bytes
from vpns_jax.data.source import Original, Sources, with_validation
from vpns_jax.data.survey import digest
from vpns_jax.errors import UserError, check_name

BUNDLED: dict[str, Callable[[], Original]] = {
    "digits": bundled.digits,
    "fonts62": fonts.fonts62,
    "mnist5k": bundled.mnist5k,
}


# What tells one version of a bundled set from another, without drawing it.
_MADE_FROM: dict[str, Callable[[], tuple[bytes, ...]]] = {
    "digits": bundled.digits_file,
    "fonts62": fonts.drawn_from,
    "mnist5k": bundled.mnist5k_file,
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


def identity(name: str, options: DecodeOptions = DEFAULT, *, data_dir: str | None = None) -> str:
    """A digest of what is read of a data set: another one wherever a run could see other pixels or labels.

    It is the same on every machine, and wherever the data lie. What it covers:

    - a folder: class names, and the label, the order and the bytes of every image that can be decoded, split by split.
      Links are followed, and what is passed over does not count. Files are read once, and again when they change.
    - a set that TFDS prepared: its version's description and class names, and the names and sizes of its records.
    - a bundled set: the packages' files that it is made from, and the versions of what draws them.

    Args:
      name: as `load`'s.
      options: as `load`'s; what is decided by them is covered too, where there are files to decode.
      data_dir: as `load`'s.

    Returns:
      32 hexadecimal digits.

    Raises:
      UserError: as `open_sources`.
    """
    check(name)
    if name in BUNDLED:
        return digest(*_MADE_FROM[name]())
    if name.startswith(folder.PREFIX):
        return digest(*folder.contents(name, options))
    return digest(*tfds_sets.contents(name, options, data_dir=data_dir))


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
