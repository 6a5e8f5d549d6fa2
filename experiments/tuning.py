"""Chooses hyper-parameters for a sweep: each method's own, from grids that the config declares, on validation alone.

Each of a method's combinations is a cell of its own at `config.tuning.density` with `config.tuning.seed`; the one
whose best epoch does best on the validation split is kept for all of the method's cells. The test split has no say.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Any, NamedTuple

from vpns_jax.experiment.config import Config

# Keys of a config and the values they get.
Values = dict[str, float]


class Candidate(NamedTuple):
    """One combination of values for one method."""

    method: str
    number: int
    values: Values

    @property
    def name(self) -> str:
        """A file name, such as vpns-2."""
        return f"{self.method}-{self.number}"


def candidates(config: Config) -> list[Candidate]:
    """All combinations of every method that has grids, in the order of the grids' values."""
    found = []
    for method in config.methods:
        grids = [grid for grid in config.tuning.grids if method in (grid.methods or config.methods)]
        for number, values in enumerate(itertools.product(*(grid.values for grid in grids))):
            if grids:
                found.append(Candidate(method, number, dict(zip((grid.key for grid in grids), values, strict=True))))
    return found


def with_values(config: Config, values: Values) -> Config:
    """`config` with the values, and nothing left to tune."""
    for key, value in values.items():
        config = config.with_value(key, value)
    return dataclasses.replace(config, tuning=dataclasses.replace(config.tuning, grids=()))


def cell_of(config: Config, candidate: Candidate) -> Config:
    """The run of a candidate: one cell, at the density and with the seed of the tuning."""
    one = with_values(config, candidate.values)
    return dataclasses.replace(
        one, methods=(candidate.method,), densities=(config.tuning.density,), seeds=(config.tuning.seed,)
    )


def choose(config: Config, folder: Path) -> dict[str, Values]:
    """The best candidate of each method whose candidates all have a result under FOLDER/NAME; of equals the first.

    Writes what they were chosen from to FOLDER/tuning.json.
    """
    from experiments import summaries
    from vpns_jax.analysis import comparison
    from vpns_jax.files import write_json

    chosen: dict[str, Values] = {}
    seen: list[dict[str, Any]] = []
    for method, group in itertools.groupby(candidates(config), key=lambda one: one.method):
        tried = list(group)
        paths = [folder / one.name / "summary.json" for one in tried]
        if not all(path.exists() for path in paths):
            continue
        accuracies = [comparison.headline(summaries.read(path)["cells"][0], split="val") for path in paths]
        best = max(range(len(tried)), key=accuracies.__getitem__)
        chosen[method] = tried[best].values
        seen.extend(_entry(one, accuracies[one.number], one.number == best) for one in tried)
    write_json(folder / "tuning.json", {"tried": seen, "chosen": chosen})
    return chosen


def _entry(candidate: Candidate, accuracy: float, chosen: bool) -> dict[str, Any]:
    return {"method": candidate.method, "values": candidate.values, "val_accuracy": accuracy, "chosen": chosen}
