"""The plan: what a config says of each cell, resolved once. Stages and pruners read it and never the config."""

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn

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
        """The cell's name in files, such as vpns-s80-seed7; s is the sparsity in percent."""
        return f"{self.method}-s{100 * (1 - self.density):.6g}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class CellPlan:
    """Everything about a cell except its data and its source network.

    Attributes:
      cell: method, density and seed.
      method: its pruner, and whether and where it has a prompt.
      options: the pruner's own options; None if it has none.
      epochs: epochs of each stage.
      prompts: the prompt of each stage: "prune", "retrain", "posthoc".
      prune: how stage prune is trained.
      retrain: how stage retrain is trained.
      posthoc: how a prompt is fitted afterwards.
      pattern: what is kept or pruned: single weights, or groups of them.
      mapping: the kind of label mapping; "head" for a new head.
      sparse_mapping: whether the mapping for retraining is estimated on the sparse network, or on the dense one.
      save_every: epochs between checkpoints.
      save_within: iterations between checkpoints within an epoch of streamed data.
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
    """Lists all cells of an experiment; see `grid`.

    Args:
      config: a checked configuration.

    Returns:
      The cells, seed by seed.
    """
    return grid(config.methods, config.densities, config.seeds)


def grid(methods: Sequence[str], densities: Sequence[float], seeds: Sequence[int]) -> Iterator[Cell]:
    """Lists every method at every density with every seed. The dense network has one density, 1.

    Args:
      methods: names of methods.
      densities: shares of weights to keep.
      seeds: seeds of the cells.

    Yields:
      The cells, seed by seed.
    """
    for seed in seeds:
        for name in methods:
            yield from (Cell(name, density, seed) for density in (densities if method(name).sparse else (1.0,)))


def check_names(config: Config) -> None:
    """Checks that no two cells share a name, and so a folder.

    Args:
      config: a checked configuration.

    Raises:
      UserError: two densities are too close to tell apart.
    """
    counts = collections.Counter(cell.name for cell in cells(config))
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise UserError(f"config.densities are too close to tell apart: two cells would be called {twice[0]}")


def plan(config: Config, cell: Cell, *, classes: int) -> CellPlan:
    """Resolves one cell.

    Args:
      config: a checked configuration.
      cell: the cell.
      classes: the number of classes of the head.

    Returns:
      The cell's plan.

    Raises:
      UserError: the budget leaves a stage no epoch; see `budget.epochs`.
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
        pattern=pruning.pattern(config, _model(config, classes)),
        mapping=config.mapping.kind,
        sparse_mapping=config.mapping.network == "sparse",
        save_every=config.checkpoint_every_epochs,
        save_within=config.checkpoint_every_steps,
    )


def network(config: Config, prompt: Prompt, normalization: models.Normalization, *, classes: int) -> Network:
    """Makes the static half of f(theta * m; x').

    Args:
      config: a checked configuration.
      prompt: the prompt of prompted passes.
      normalization: the mean and deviation by which images are normalized.
      classes: the number of classes of the head.

    Returns:
      The network. Under the reference protocol plain images keep their size; otherwise they are put on the canvas.
    """
    return Network(
        model=_model(config, classes),
        prompt=prompt,
        plain=create("none", canvas_size=config.prompt.canvas_size) if config.protocol == "paper" else None,
        mean=normalization.mean,
        std=normalization.std,
    )


def _model(config: Config, classes: int) -> nn.Module:
    return models.create(config.model.name, num_classes=classes, **config.model.options)


def _weights(config: Config, epochs: int) -> Recipe:
    """How weights and prompt are trained in stage retrain, and a prompt afterwards."""
    optimizers = {"weights": config.retrain.weights, "prompt": config.retrain.prompt}
    return Recipe(config.protocol, config.data.batch_size, epochs, optimizers)
