"""Chooses the hyper-parameters of each method of a sweep, from the grids of the config, by validation accuracy alone.

Each combination of a method's values is one cell, at `config.tuning.density` with `config.tuning.seed`. The combination
with the best validation accuracy is used for all cells of the method. The test split is not used.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Any, NamedTuple

from vpns_jax.experiment.config import Config

# Values by the dotted keys of a config.
Values = dict[str, float]


class Candidate(NamedTuple):
    """One combination of values for one method."""

    method: str
    number: int
    values: Values

    @property
    def name(self) -> str:
        """The name in files, such as vpns-2."""
        return f"{self.method}-{self.number}"


def candidates(config: Config) -> list[Candidate]:
    """Lists all combinations of every method that has grids, in the order of the grids' values.

    Args:
      config: the configuration.

    Returns:
      The combinations.
    """
    combinations = []
    for method in config.methods:
        grids = [grid for grid in config.tuning.grids if method in (grid.methods or config.methods)]
        for number, values in enumerate(itertools.product(*(grid.values for grid in grids))):
            if grids:
                keys = (grid.key for grid in grids)
                combinations.append(Candidate(method, number, dict(zip(keys, values, strict=True))))
    return combinations


def with_values(config: Config, values: Values) -> Config:
    """Sets values in a config, and removes its grids.

    Args:
      config: the configuration.
      values: values by dotted key.

    Returns:
      The new configuration.

    Raises:
      UserError: a key does not exist, or is not a float.
    """
    for key, value in values.items():
        config = config.with_value(key, value)
    return dataclasses.replace(config, tuning=dataclasses.replace(config.tuning, grids=()))


def cell_of(config: Config, candidate: Candidate) -> Config:
    """Makes the config of a candidate: one cell, with the density and seed of the tuning.

    Args:
      config: the configuration.
      candidate: the candidate.

    Returns:
      The new configuration.
    """
    tried = with_values(config, candidate.values)
    return dataclasses.replace(
        tried, methods=(candidate.method,), densities=(config.tuning.density,), seeds=(config.tuning.seed,)
    )


def choose(config: Config, folder: Path) -> dict[str, Values]:
    """Chooses the best candidate of each method, the first if several are equal, and writes FOLDER/tuning.json.

    Args:
      config: the configuration. What is written covers its methods alone.
      folder: the folder of the candidates' runs, FOLDER/NAME.

    Returns:
      The values of each method. A method is left out if one of its candidates has no result.

    Raises:
      UserError: a summary is damaged, or the disk refuses.
    """
    from experiments import summaries
    from vpns_jax.analysis import comparison
    from vpns_jax.files import write_json

    chosen: dict[str, Values] = {}
    seen: list[dict[str, Any]] = []
    for method, group in itertools.groupby(candidates(config), key=lambda candidate: candidate.method):
        tried = list(group)
        paths = [folder / candidate.name / "summary.json" for candidate in tried]
        if not all(path.exists() for path in paths):
            continue
        accuracies = [comparison.headline(summaries.read(path)["cells"][0], split="val") for path in paths]
        best = max(range(len(tried)), key=accuracies.__getitem__)
        chosen[method] = tried[best].values
        seen.extend(_entry(candidate, accuracies[candidate.number], candidate.number == best) for candidate in tried)
    write_json(folder / "tuning.json", {"tried": seen, "chosen": chosen})
    return chosen


def _entry(candidate: Candidate, accuracy: float, chosen: bool) -> dict[str, Any]:
    return {"method": candidate.method, "values": candidate.values, "val_accuracy": accuracy, "chosen": chosen}
