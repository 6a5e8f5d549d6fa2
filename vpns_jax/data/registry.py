"""Every data set by its name."""

from collections.abc import Callable

from vpns_jax.data import bundled, fonts
from vpns_jax.data.dataset import Dataset
from vpns_jax.data.materialize import materialize
from vpns_jax.data.source import Original, Sources, with_validation
from vpns_jax.errors import check_name

BUNDLED: dict[str, Callable[[], Original]] = {
    "digits": bundled.digits,
    "fonts62": fonts.fonts62,
    "mnist5k": bundled.mnist5k,
}


def names() -> tuple[str, ...]:
    """The data sets that `load` knows."""
    return tuple(BUNDLED)


def check(name: str) -> None:
    """Raises `UserError` listing the known names unless `name` is a data set; looks at no data."""
    check_name("data set", name, names())


def open_sources(name: str, *, val_fraction: float = 0.1, seed: int = 0) -> Sources:
    """The data set `name`, its images not yet decoded; see `load`."""
    check(name)
    return with_validation(BUNDLED[name](), name, val_fraction=val_fraction, seed=seed)


def load(name: str, *, image_size: int, val_fraction: float = 0.1, seed: int = 0) -> Dataset:
    """The data set `name` in memory, all images square of `image_size`.

    Args:
      name: one of `names()`.
      image_size: what the images are resized to (PIL, antialiased bilinear), at least 1.
      val_fraction: share of each class of train that is held out for validation, in (0, 1); a data set that brings
        a validation split of its own keeps that.
      seed: of the draw of the validation split; the same seed gives the same split.

    Raises:
      UserError: an unknown name, a missing package, a fraction outside (0, 1).
    """
    return materialize(open_sources(name, val_fraction=val_fraction, seed=seed), image_size=image_size)
