"""The groups of tuning: values of hyper-parameters to choose from."""

import dataclasses

from vpns_jax.errors import UserError, short
from vpns_jax.experiment import ranges
from vpns_jax.options import option
from vpns_jax.sparsity import DENSITY


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """Values of one key from which methods choose."""

    methods: tuple[str, ...] = option((), "The methods that choose; () means all.")
    key: str = option("", "The key, such as prune.scores.learning_rate.")
    values: tuple[float, ...] = option((), "The values to choose from.")

    def check(self, path: str) -> None:
        """Checks that there are values to choose from.

        Args:
          path: the name of this grid, such as "config.tuning.grids[0]".

        Raises:
          UserError: there is no value, or one appears twice.
        """
        if not self.values or len(set(self.values)) != len(self.values):
            values = short(self.values)
            raise UserError(
                f"{path}: the grid over {self.key[:80]} is {values}; it must hold at least one value, each once"
            )


@dataclasses.dataclass(frozen=True)
class TuningConfig:
    """Hyper-parameters that a sweep chooses by validation accuracy before it runs; see `experiments.tuning`."""

    density: float = option(0.1, "The density at which values are tried.", DENSITY)
    seed: int = option(0, "The seed with which values are tried.", ranges.SEED)
    grids: tuple[GridConfig, ...] = option(
        (),
        'Grids of values, such as grid("prune.scores.learning_rate", (1e-4, 1e-3), ("vpns", "hydra")): key, values, '
        "methods.",
    )
