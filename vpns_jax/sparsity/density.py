"""Density: the share of weights, or of groups of weights, that is kept."""

from vpns_jax.options import Range

DENSITY = Range(0, 1, "", "(]", must="a density must lie in (0, 1], the share kept")


def pruned_of(total: int, density: float) -> int:
    """How many of `total` weights or groups are pruned at a density: `int((1 - density) * total)`, the paper's k."""
    return int((1 - density) * total)


def check_density(density: float) -> None:
    """Checks a density.

    Args:
      density: the share kept; 1 keeps everything.

    Raises:
      UserError: the density is not in (0, 1].
    """
    DENSITY.check(density, f"density is {density}")
