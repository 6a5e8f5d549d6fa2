"""A run's configuration: parsed once, checked whole, immutable after.

A key that is missing, unknown, of another type or of a value that is not allowed ends the run before anything else
happens.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from vpns_jax import data, models, sparsity
from vpns_jax.errors import UserError, check_name
from vpns_jax.experiment import budget
from vpns_jax.experiment.schema import Config
from vpns_jax.prompting import label_mapping
from vpns_jax.pruners import method
from vpns_jax.training import passes, stage

__all__ = ["Config", "parse"]

# Where a prompt is learned: while pruning, in retraining, or in both.
PROMPT_STAGES = ("prune", "retrain", "both")


def parse(tree: Mapping[str, Any]) -> Config:
    """Builds and checks a configuration.

    Raises:
      UserError: one line that names the key, what was found and what is allowed.
    """
    config = _build(Config, tree, "config")
    _check(config)
    return config


def _check(config: Config) -> None:
    _check_names(config)
    _check_cells(config)
    _check_numbers(config)
    _check_prompt(config)
    _check_grids(config)


def _check_names(config: Config) -> None:
    """Raises `UserError` listing those there are for a name that is not."""
    check_name("prompt.stage", config.prompt.stage, PROMPT_STAGES)
    for name in config.methods:
        found = method(name)
        if found.prompted and not found.training and config.prompt.stage == "prune":
            raise UserError(
                f"config.prompt.stage is 'prune', where {name} learns nothing; it allows 'retrain' and 'both'"
            )
        if found.given and not config.transfer.mask:
            raise UserError(f"config.transfer.mask is ''; {name} takes the CELL.safetensors of an earlier run")
    check_name("protocol", config.protocol, tuple(passes.PROTOCOLS))
    grain = sparsity.parse_granularity(config.granularity)
    check_name("allocation", config.allocation, sparsity.allocation.ALLOCATIONS)
    for name in config.methods:
        if grain.kind == "N:M" and method(name).gradual:
            raise UserError(f"config.granularity {grain} has one density, and {name} gets there by others")
    check_name("budget", config.budget, budget.BUDGETS)
    check_name("model", config.model.name, models.names())
    for option in config.model.options:
        check_name(f"option of {config.model.name}", option, models.options(config.model.name))
    models.create(config.model.name, **config.model.options)
    data.check(config.data.name)
    if config.model.weights == "pretrain":
        data.check(config.pretrain.data)
    check_name("mapping", config.mapping.kind, label_mapping.KINDS)
    check_name("network to estimate the mapping on", config.mapping.network, ("sparse", "dense"))
    check_name("batch_norm", config.prune.batch_norm, stage.BATCH_NORMS)


def _check_cells(config: Config) -> None:
    """Raises `UserError` if methods, densities and seeds make no grid."""
    for name in ("methods", "densities", "seeds"):
        values = getattr(config, name)
        if not values or len(set(values)) != len(values):
            raise UserError(f"config.{name} is {values}; it must hold at least one value, each once")
    for name, seeds in (
        ("seeds", config.seeds),
        ("pretrain.seed", (config.pretrain.seed,)),
        ("tuning.seed", (config.tuning.seed,)),
    ):
        for seed in seeds:
            # Others would be taken modulo 2**32, and two seeds be one.
            if not 0 <= seed < 2**32:
                raise UserError(f"config.{name} holds {seed}; a seed must lie in [0, 2**32)")
    for density in config.densities:
        if not 0 < density <= 1:
            raise UserError(f"config.densities holds {density}; a density must lie in (0, 1], the share kept")


def _check_numbers(config: Config) -> None:
    """Raises `UserError` for a number out of its range."""
    for name in (
        "pretrain.epochs",
        "pretrain.batch_size",
        "data.image_size",
        "data.batch_size",
        "prune.epochs",
        "scoring.batches",
        "synflow.rounds",
        "imp.epochs",
        "retrain.epochs",
        "checkpoint_every_epochs",
    ):
        _check_positive(config, name)
    for name, value in (
        ("checkpoint_every_steps", config.checkpoint_every_steps),
        ("data.budget_gib", config.data.budget_gib),
        ("data.workers", config.data.workers),
    ):
        if not 0 <= value < float("inf"):
            raise UserError(f"config.{name} is {value}; it must be zero or more")
    for axis, length in dataclasses.asdict(config.mesh).items():
        if length != -1 and length < 1:
            raise UserError(f"config.mesh.{axis} is {length}; it must be at least 1, or -1, what the other leaves")
    if config.mesh.data == config.mesh.fsdp == -1:
        raise UserError("config.mesh.data and config.mesh.fsdp are -1; only one of them can be what the other leaves")
    if not 0 < config.data.val_fraction < 1:
        raise UserError(f"config.data.val_fraction is {config.data.val_fraction}; it must lie in (0, 1)")
    for name, value in (("scoring.temperature", config.scoring.temperature), ("bip.gamma", config.bip.gamma)):
        if not 0 < value < float("inf"):
            raise UserError(f"config.{name} is {value}; it must be above zero")
    if not 0 < config.imp.drop < 1:
        raise UserError(f"config.imp.drop is {config.imp.drop}; it must lie in (0, 1), a share of what is left")
    if not 0 <= config.imp.rewind_epochs < config.imp.epochs:
        raise UserError(
            f"config.imp.rewind_epochs is {config.imp.rewind_epochs}; "
            f"with config.imp.epochs = {config.imp.epochs} it allows 0 ... {config.imp.epochs - 1}"
        )


def _check_grids(config: Config) -> None:
    """Raises `UserError` if there is nothing to choose from, or a value to choose makes no configuration."""
    tuning, named = config.tuning, []
    if not 0 < tuning.density <= 1:
        raise UserError(f"config.tuning.density is {tuning.density}; a density must lie in (0, 1], the share kept")
    for grid in tuning.grids:
        methods = grid.methods or config.methods
        for name in methods:
            check_name("method of a grid", name, config.methods)
        if not grid.values or len(set(grid.values)) != len(grid.values):
            raise UserError(f"the grid over {grid.key} is {grid.values}; it must hold at least one value, each once")
        named += [(name, grid.key) for name in methods]
        for value in grid.values:
            plain = dataclasses.replace(
                config.with_value(grid.key, value), tuning=dataclasses.replace(tuning, grids=())
            )
            _check(plain)
    twice = sorted({f"{name}: {key}" for name, key in named if named.count((name, key)) > 1})
    if twice:
        raise UserError(f"config.tuning.grids name {twice[0]} twice")


def _check_positive(config: Config, name: str) -> None:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    if value < 1:
        raise UserError(f"config.{name} is {value}; it must be at least 1")


def _check_prompt(config: Config) -> None:
    prompt = config.make_prompt()
    size, canvas_size = config.data.image_size, prompt.canvas_size
    if size > canvas_size:
        raise UserError(
            f"config.data.image_size is {size}; images must fit the canvas, config.prompt.canvas_size = {canvas_size}"
        )
    if prompt.kind == "expand" and size != canvas_size - 2 * prompt.size:
        raise UserError(
            f"config.data.image_size is {size}; prompt expand of {prompt.size} px on a canvas of {canvas_size} px "
            f"takes {canvas_size - 2 * prompt.size}"
        )


def _build(kind: Any, value: Any, path: str) -> Any:
    """`value` as an instance of `kind`: a dataclass, a tuple, a dict or a plain type."""
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, path)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{path} is {value!r}; it must be a tuple")
        return tuple(_build(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{path} is {value!r}; it must be a dict")
        # None stands for what is not set.
        return {name: item for name, item in value.items() if item is not None}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{path} is {value!r}; it must be of type {kind.__name__}")
    return value


def _build_dataclass(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise UserError(f"{path} is {value!r}; it must be a group of keys")
    hints = typing.get_type_hints(kind)
    optional = {field.name for field in dataclasses.fields(kind) if _has_default(field)}
    for problem, keys in (("unknown", set(value) - set(hints)), ("missing", set(hints) - set(value) - optional)):
        if keys:
            raise UserError(f"{path} has {problem} keys {sorted(keys)}; known: {', '.join(hints)}")
    found = {name: _build(hint, value[name], f"{path}.{name}") for name, hint in hints.items() if name in value}
    try:
        return kind(**found)
    except UserError as error:
        # From checks of the dataclass's own, which do not know where in the config it stands.
        raise UserError(f"{path}: {error}") from error


def _has_default(field: dataclasses.Field) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
