"""The plan: a config resolved once, cell by cell. After that nobody asks the config anything."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from vpns_jax import models, sparsity
from vpns_jax.errors import UserError
from vpns_jax.experiment import budget, pruning
from vpns_jax.experiment.budget import Epochs
from vpns_jax.experiment.config import Config
from vpns_jax.prompting import Prompt, create
from vpns_jax.pruners import Method, method
from vpns_jax.training.network import Network
from vpns_jax.training.stage import Recipe

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Cell:
    """One method at one density with one seed."""

    method: str
    density: float
    seed: int

    @property
    def name(self) -> str:
        """A file name, such as vpns-s80-seed7; s is the sparsity in per cent."""
        return f"{self.method}-s{100 * (1 - self.density):.6g}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class CellPlan:
    """All that a cell does, but for its data and its source network.

    Attributes:
      cell: its name in the results.
      method: its pruner, and what of the prompt goes with it.
      options: what the config says of that pruner alone; None for one without options.
      epochs: of each stage.
      prompts: by stage: "prune", "retrain", "posthoc".
      prune, retrain, posthoc: how each stage is trained.
      pattern: what is kept or pruned: single weights, or groups of them.
      mapping: kind of label mapping; "head" for a new head.
      sparse_mapping: whether it is first estimated on the sparse network, or on the dense one.
      save_every, save_within: epochs and, of data that stream in, iterations between checkpoints.
    """

    cell: Cell
    method: Method
    options: Any
    epochs: Epochs
    prompts: dict[str, Prompt]
    prune: Recipe
    retrain: Recipe
    posthoc: Recipe
    pattern: sparsity.Pattern
    mapping: str
    sparse_mapping: bool
    save_every: int
    save_within: int


def cells(config: Config) -> Iterator[Cell]:
    """All cells of an experiment, seed by seed. A dense network has one density, 1."""
    return grid(config.methods, config.densities, config.seeds)


def grid(methods: Sequence[str], densities: Sequence[float], seeds: Sequence[int]) -> Iterator[Cell]:
    """Every method at every density with every seed, seed by seed. A dense network has one density, 1."""
    for seed in seeds:
        for name in methods:
            yield from (Cell(name, density, seed) for density in (densities if method(name).sparse else (1.0,)))


def check_names(config: Config) -> None:
    """Raises `UserError` if two cells would share a name, and so a folder."""
    names = [cell.name for cell in cells(config)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"config.densities are too close to tell apart: two cells would be called {twice[0]}")


def plan(config: Config, cell: Cell) -> CellPlan:
    """Resolves one cell.

    Raises:
      UserError: its method's stages cannot be as long as the config has them; see `budget.epochs`.
    """
    chosen = method(cell.method)
    epochs = budget.epochs(config, cell.method, cell.density)
    options = config.options(chosen)
    if epochs.round:
        options = dataclasses.replace(options, epochs=epochs.round)
    blank = create("none", canvas_size=config.prompt.canvas_size)
    stages = ("prune", "retrain", "posthoc")
    return CellPlan(
        cell=cell,
        method=chosen,
        options=options,
        epochs=epochs,
        prompts={
            stage: config.make_prompt() if budget.has_prompt(config, chosen, stage) else blank for stage in stages
        },
        prune=Recipe(
            config.protocol,
            config.data.batch_size,
            epochs.prune,
            {"scores": config.prune.scores, "prompt": config.prune.prompt, "head": config.prune.head},
            config.prune.batch_norm,
        ),
        retrain=_weights(config, epochs.retrain),
        posthoc=_weights(config, epochs.posthoc),
        pattern=pruning.pattern(config),
        mapping=config.mapping.kind,
        sparse_mapping=config.mapping.network == "sparse",
        save_every=config.checkpoint_every_epochs,
        save_within=config.checkpoint_every_steps,
    )


def network(config: Config, prompt: Prompt, normalization: models.Normalization, *, classes: int) -> Network:
    """The static half of f(theta * m; x') with that prompt. The reference protocol keeps plain images at their size."""
    return Network(
        model=models.create(config.model.name, num_classes=classes, **config.model.options),
        prompt=prompt,
        plain=create("none", canvas_size=config.prompt.canvas_size) if config.protocol == "paper" else None,
        mean=normalization.mean,
        std=normalization.std,
    )


def _weights(config: Config, epochs: int) -> Recipe:
    """How weights and prompt are trained in stage 2."""
    optimizers = {"weights": config.retrain.weights, "prompt": config.retrain.prompt}
    return Recipe(config.protocol, config.data.batch_size, epochs, optimizers)
