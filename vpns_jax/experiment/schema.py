"""A configuration: of each key the type, the default, what it means, and what is allowed, here and in `groups`.

`configs/default.py` is the list that users copy from; a test holds it to what stands here. Values are immutable once
made, and no module below the constructors reads a config by key.
"""

import dataclasses
import json
from typing import Any, TypeVar

from vpns_jax import models, sparsity
from vpns_jax.errors import UserError, check_name, short
from vpns_jax.experiment import ranges, target
from vpns_jax.experiment.groups import (
    DataConfig,
    MappingConfig,
    MeshConfig,
    ModelConfig,
    PretrainConfig,
    PromptConfig,
    PruneConfig,
    RetrainConfig,
    TuningConfig,
)
from vpns_jax.options import Range, at, check, option
from vpns_jax.prompting import Prompt
from vpns_jax.pruners import METHODS, OPTIONS, Method, method
from vpns_jax.training import passes

T = TypeVar("T")


def _granularity(value: str, path: str) -> None:
    sparsity.parse_granularity(value)


def _target(value: str, path: str) -> None:
    target.parse(value)


def _method(value: str, path: str) -> None:
    method(value)


def _with_pruners_options(config: type[T]) -> type[T]:
    """Gives the config a group for each pruner's options, which are declared beside the pruner."""
    for name, group in OPTIONS.items():
        config.__annotations__[name] = group
        setattr(config, name, option(group(), (group.__doc__ or "").splitlines()[0]))
    return config


@dataclasses.dataclass(frozen=True)
@_with_pruners_options
class Config:
    """A whole experiment: every method at every density with every seed."""

    name: str = option(
        "default",
        "The title of the report; where --workdir is not given, the run's folder is runs/NAME.",
        ranges.run_name,
    )
    methods: tuple[str, ...] = option(
        ("vpns",),
        f"What is run, each at every density with every seed: {', '.join(METHODS)}. With +prompt after its name a "
        "method learns a prompt, too, as vpns does; with +posthoc a prompt is fitted on the finished network.",
        _method,
    )
    densities: tuple[float, ...] = option((0.1,), "The shares of weights that are kept.", sparsity.DENSITY)
    seeds: tuple[int, ...] = option(
        (7,),
        "Everything is run once with each; the order of the images and all that is drawn by lot follow from it.",
        ranges.SEED,
    )
    protocol: str = option(
        "paper",
        '"paper": one prompted, augmented batch an iteration. "reference": the released code\'s two batches.',
        tuple(passes.PROTOCOLS),
    )
    budget: str = option(
        "own",
        '"own": every method\'s stages are as long as below. "matched": all methods get VPNs\' passes through the '
        "network.",
        ("own", "matched"),
    )
    granularity: str = option(
        "weight",
        'What is kept or pruned: "weight" by weight, or a "kernel" (h x w), "channel" (output; coupled ones as one), '
        '"input_channel", "2:4" (any N of M inputs), "block:4x4" (dense layers) at a time. Densities are shares of '
        "these.",
        _granularity,
    )
    allocation: str = option(
        "global",
        '"global" (one threshold), "uniform" (each layer at the density) or "erk" (large layers sparser).',
        tuple(sparsity.allocation.ALLOCATIONS),
    )
    target: str = option(
        "",
        'With granularity "channel": what the network may cost once pruned channels are cut out, such as "macs:0.5", '
        'half the dense multiply-adds, or "params:0.5", half the parameters. The share takes the place of densities.',
        _target,
    )
    checkpoint_every_epochs: int = option(
        5, "Epochs between checkpoints to resume from.", Range(1, 1_000_000, "no stage has that many epochs")
    )
    checkpoint_every_steps: int = option(
        500,
        "Within epochs too, where the data stream in from the host; 0 for none.",
        Range(0, 2**31 - 1, "steps are counted in 32 bits"),
    )
    model: ModelConfig = option(ModelConfig(), "The network, its weights, and what of it may be pruned.")
    pretrain: PretrainConfig = option(PretrainConfig(), 'Only read where model.weights is "pretrain".')
    data: DataConfig = option(DataConfig(), "The downstream data set.")
    mesh: MeshConfig = option(
        MeshConfig(),
        "The devices as a grid, with -1 for what the other leaves. Batches are split over both; over fsdp so are "
        "weights, scores, masks and the optimizers' moments. A run may go on with other values, and on another number "
        "of devices.",
    )
    prompt: PromptConfig = option(PromptConfig(), "The visual prompt of the methods that have one.")
    mapping: MappingConfig = option(MappingConfig(), "Which pretrained class speaks for each class of the data set.")
    prune: PruneConfig = option(PruneConfig(), "Stage 1: scores and prompt, weights frozen.")
    retrain: RetrainConfig = option(RetrainConfig(), "Stage 2: weights and prompt, mask frozen.")
    tuning: TuningConfig = option(
        TuningConfig(),
        "Read by experiments.sweep: values for methods to choose from, on validation.",
    )

    def to_json(self) -> dict[str, Any]:
        """Plain nested dicts, as written beside the results."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def with_value(self, key: str, value: float) -> "Config":
        """Returns a config with another value for one key.

        Args:
          key: the dotted key, such as "prune.scores.learning_rate".
          value: the new value.

        Returns:
          The new config.

        Raises:
          UserError: there is no such key, or it is not a float.
        """
        return _with_value(self, key.split("."), value, f"config.{key}")

    def options(self, method: Method) -> Any:
        """The group of options that a method reads: an instance of `method.options`, or None."""
        return getattr(self, method.options.group) if method.options else None

    @property
    def transferred_mask(self) -> str:
        """The file whose mask method "transfer" takes; "" for none."""
        return self.options(method("transfer")).mask

    def make_prompt(self) -> Prompt:
        """The configured prompt."""
        return self.prompt.make()

    def check(self, path: str) -> None:
        """Raises `UserError` if groups do not go together."""
        self._check_cells(path)
        self._check_methods(path)
        self._check_data(path)
        self._check_grids(path)

    def _check_cells(self, path: str) -> None:
        """Raises `UserError` if methods, densities and seeds make no grid, or one that nobody can run."""
        for name in ("methods", "densities", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise UserError(f"{path}.{name} is {short(values)}; it must hold at least one value, each once")
        cells = len(self.methods) * len(self.densities) * len(self.seeds)
        if cells > ranges.MOST_CELLS:
            raise UserError(
                f"{path}.methods, densities and seeds make {cells:,} cells; at most {ranges.MOST_CELLS:,} are allowed"
            )

    def _check_methods(self, path: str) -> None:
        """Raises `UserError` for a method that the rest of the config leaves nothing to do, or too much."""
        grain = sparsity.parse_granularity(self.granularity)
        if self.target and (grain.kind != "channel" or self.allocation != "global"):
            raise UserError(
                f"{path}.target is {self.target}, which needs {path}.granularity channel and {path}.allocation global; "
                f"found {self.granularity} and {self.allocation}"
            )
        for name in self.methods:
            found = method(name)
            if found.prompted and not found.training and self.prompt.stage == "prune":
                raise UserError(
                    f"{path}.prompt.stage is 'prune', where {name} learns nothing; it allows 'retrain' and 'both'"
                )
            if found.given and not self.transferred_mask:
                raise UserError(f"{path}.transfer.mask is ''; {name} takes the CELL.safetensors of an earlier run")
            if self.target and (found.given or found.layerwise):
                raise UserError(
                    f"{path}.target is {self.target}, which takes one threshold of scores; {name} has none, use another"
                )
            if grain.kind == "N:M" and found.gradual:
                raise UserError(f"{path}.granularity {grain} has one density, and {name} gets there by others")
            if found.training and found.training.rounds:
                options = self.options(found)
                options.check_rounds(min(self.densities), f"{path}.{options.group}")

    def _check_data(self, path: str) -> None:
        """Raises `UserError` if images do not fit the canvas, or batches no memory."""
        if self.mapping.kind != "head" and models.covers_head(self.model.dont_load):
            raise UserError(
                f"{path}.model.dont_load is {short(self.model.dont_load)}: a label mapping needs the weights' own "
                "head; mapping.kind=head learns a new one"
            )
        if self.model.weights == "pretrain":
            with at(f"{path}.pretrain.data"):
                ranges.data_set(self.pretrain.data, f"{path}.pretrain.data")
        prompt, size = self.make_prompt(), self.data.image_size
        canvas = prompt.canvas_size
        if size > canvas:
            raise UserError(
                f"{path}.data.image_size is {size}; images must fit the canvas, {path}.prompt.canvas_size = {canvas}"
            )
        if prompt.image_size not in (None, size):
            raise UserError(f"{path}.data.image_size is {size}; {prompt} takes {prompt.image_size}")
        for group in ("data", "pretrain"):
            batch = getattr(self, group).batch_size
            needed = batch * canvas**2 * 3 * 4
            if needed > ranges.MOST_BATCH_BYTES:
                raise UserError(
                    f"{path}.{group}.batch_size is {batch}: a batch on a canvas of {canvas} px takes "
                    f"{needed / 2**30:,.0f} GiB; at most {ranges.MOST_BATCH_BYTES // 2**30:,} GiB are allowed"
                )

    def _check_grids(self, path: str) -> None:
        """Raises `UserError` if a method chooses twice, or a value to choose makes no configuration."""
        tuning = self.tuning
        named: list[tuple[str, str]] = []
        for grid in tuning.grids:
            methods = grid.methods or self.methods
            for name in methods:
                check_name("method of a grid", name, self.methods)
            named += [(name, grid.key) for name in methods]
            for value in grid.values:
                plain = dataclasses.replace(tuning, grids=())
                check(dataclasses.replace(self.with_value(grid.key, value), tuning=plain), path)
        twice = sorted({f"{name}: {key}" for name, key in named if named.count((name, key)) > 1})
        if twice:
            raise UserError(f"{path}.tuning.grids name {twice[0]} twice")


def _with_value(group: Any, path: list[str], value: float, key: str) -> Any:
    name, *rest = path
    known = [field.name for field in dataclasses.fields(group)] if dataclasses.is_dataclass(group) else []
    found = getattr(group, name) if name in known else None
    if rest and dataclasses.is_dataclass(found):
        value = _with_value(found, rest, value, key)
    elif rest or not isinstance(found, float):
        raise UserError(
            f"a grid over {key[:80]}: there is no such key that holds a float; configs/default.py lists all keys"
        )
    return dataclasses.replace(group, **{name: value})
