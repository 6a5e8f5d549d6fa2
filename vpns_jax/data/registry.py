"""All data sets by name."""

from collections.abc import Callable

from vpns_jax import references
from vpns_jax.data import bundled, folder, fonts, own, tfds_sets
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


# Bytes that differ between versions of a bundled set; they are found without making the set.
MADE_FROM: dict[str, Callable[[], tuple[bytes, ...]]] = {
    "digits": bundled.digits_file,
    "fonts62": fonts.drawn_from,
    "mnist5k": bundled.mnist5k_file,
}


def names() -> tuple[str, ...]:
    """The names of all data sets, except those of the forms `folder:/path` and `module:function`."""
    return (*BUNDLED, *tfds_sets.ENTRIES)


def check(name: str) -> None:
    """Checks a data set's name, without reading data.

    Args:
      name: one of `names()`, `folder:/path`, or `module:function` (see `own.py`).

    Raises:
      UserError: the name is unknown (the error lists the known names), the folder does not exist, or the function
        cannot be imported.
    """
    if name.startswith(folder.PREFIX):
        folder.check(name)
    elif references.is_reference(name):
        references.resolve(name, "data set")
    else:
        check_name("data set", name, (*names(), f"{folder.PREFIX}/path/to/images", "my_module:make_data"))


def identity(name: str, options: DecodeOptions = DEFAULT, *, data_dir: str | None = None) -> str:
    """A digest of a data set. It changes whenever a run could see other pixels or labels.

    It is the same on every machine and for every copy of the data. It covers:

    - of a folder: class names, and the labels, the order and the bytes of all readable images, split by split. Links
      are followed, and skipped files do not count. Files are read once, and again when they change.
    - of a set that TFDS prepared: its version's description and class names, and the names and sizes of its records.
    - of a bundled set: the packages' files that it is made from, and the versions of the libraries that draw it.
    - of a function's set: class names, and all pixels and labels, split by split.

    Args:
      name: as for `load`.
      options: as for `load`; if files are decoded, the digest covers the resulting decoding, too.
      data_dir: as for `load`.

    Returns:
      32 hexadecimal digits.

    Raises:
      UserError: as `open_sources`.
    """
    check(name)
    if name in BUNDLED:
        return digest(*MADE_FROM[name]())
    if name.startswith(folder.PREFIX):
        return digest(*folder.contents(name, options))
    if references.is_reference(name):
        return digest(*own.contents(name))
    return digest(*tfds_sets.contents(name, options, data_dir=data_dir))


def open_sources(
    name: str,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    data_dir: str | None = None,
    options: DecodeOptions = DEFAULT,
) -> Sources:
    """Opens a data set without decoding its images.

    Args:
      name: as for `load`.
      val_fraction: as for `load`.
      seed: as for `load`.
      data_dir: as for `load`.
      options: as for `load`.

    Returns:
      The data set.

    Raises:
      UserError: as `load`, except for the memory limit.
    """
    check(name)
    if name in BUNDLED:
        original = BUNDLED[name]()
    elif name.startswith(folder.PREFIX):
        original = folder.open_folder(name, options)
    elif references.is_reference(name):
        original = own.open_own(name)
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
    """Loads a data set into memory, with square images of one size.

    Args:
      name: one of `names()`, `folder:/path` (see `folder.py`), or `module:function` (see `own.py`).
      image_size: side in pixels to which images are resized (PIL, antialiased bilinear), at least 1.
      val_fraction: share of each class of the training split that is held out for validation, in (0, 1). It is ignored
        if the data set has its own validation split.
      seed: the seed of the validation split.
      data_dir: the folder of prepared data sets; None takes $TFDS_DATA_DIR, or ~/tensorflow_datasets.
      options: how image files are decoded; bundled sets and those of functions are arrays and do not use them.
      budget_bytes: the most bytes that all arrays together may take.

    Returns:
      The data set.

    Raises:
      UserError: the name is unknown, a package is missing, the data set is not prepared or does not fit the budget, a
        file became unreadable, or a validation split is held out and the fraction is outside (0, 1).
    """
    sources = open_sources(name, val_fraction=val_fraction, seed=seed, data_dir=data_dir, options=options)
    needed = resident_bytes(sources, image_size=image_size)
    if needed > budget_bytes:
        raise UserError(
            f"data set {name!r} at {image_size} px takes {needed / 2**30:.1f} GiB, and the budget is "
            f"{budget_bytes / 2**30:.1f} GiB; raise the budget, take smaller images, or stream it from the host"
        )
    return materialize(sources, image_size=image_size)
