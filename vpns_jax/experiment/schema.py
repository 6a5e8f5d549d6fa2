"""The keys of a configuration. One field, here or in `groups`, holds the type, default, meaning and allowed values.

`configs/default.py` is the readable list that users copy from; a test checks that it agrees with the fields. Values are
immutable, and no module below `experiment` reads a config by key.
"""

import dataclasses
import json
from typing import Any, TypeVar

from vpns_jax import models, sparsity
from vpns_jax.errors import UserError, check_name, short
from vpns_jax.experiment import ranges, target
from vpns_jax.experiment.groups.data import DataConfig, MeshConfig
from vpns_jax.experiment.groups.learning import MappingConfig, PromptConfig, PruneConfig, RetrainConfig
from vpns_jax.experiment.groups.network import ModelConfig, PretrainConfig
from vpns_jax.experiment.groups.tuning import TuningConfig
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
        "The title of the report; without --workdir also the run's folder, runs/NAME.",
        ranges.run_name,
    )
    methods: tuple[str, ...] = option(
        ("vpns",),
        f"The methods to compare, each at every density with every seed: {', '.join(METHODS)}. METHOD+prompt also "
        "learns a prompt, as vpns does; METHOD+posthoc fits a prompt to the finished network.",
        _method,
    )
    densities: tuple[float, ...] = option(
        (0.1,), "The shares of the prunable weights, or of their groups, that are kept.", sparsity.DENSITY
    )
    seeds: tuple[int, ...] = option(
        (7,),
        "The seeds of random numbers, such as those for the order of the images; every method is run once with each.",
        ranges.SEED,
    )
    protocol: str = option(
        "paper",
        'What an iteration uses. "paper": one prompted, augmented batch. "reference", as in the released code: a '
        "prompted batch without augmentation, then a plain, augmented one.",
        tuple(passes.PROTOCOLS),
    )
    budget: str = option(
        "own",
        '"own": each method trains for the epochs given below. "matched": all methods get as many passes through the '
        "network as VPNs.",
        ("own", "matched"),
    )
    granularity: str = option(
        "weight",
        'Which weights are kept or pruned together, as one group: "weight" (each alone), "kernel" (h x w), "channel" '
        '(an output channel in all layers that share it), "input_channel", "2:4" (N of every M inputs) or "block:4x4" '
        "(in dense layers). Densities are shares of groups.",
        _granularity,
    )
    allocation: str = option(
        "global",
        'How layers share the density: "global" (one threshold for all), "uniform" (every layer has the density) or '
        '"erk" (small layers keep a larger share).',
        tuple(sparsity.allocation.ALLOCATIONS),
    )
    target: str = option(
        "",
        'With granularity "channel": the allowed cost of the network without its pruned channels, such as "macs:0.5" '
        '(half of the dense multiply-adds) or "params:0.5" (half of the parameters). The share takes the place of '
        "densities.",
        _target,
    )
    checkpoint_every_epochs: int = option(
        5,
        "Epochs between checkpoints. A killed run loses the epochs since the newest one.",
        Range(1, 1_000_000, "no stage has that many epochs"),
    )
    checkpoint_every_steps: int = option(
        500,
        "Steps between checkpoints within an epoch, for images that are streamed from the host; 0 for none.",
        Range(0, 2**31 - 1, "steps are counted in 32 bits"),
    )
    fast_compile: bool = option(
        False,
        "Whether XLA optimizes programs for CPUs less: they compile in less time and run slower, so this is for runs "
        "of a few minutes. Accelerators ignore it.",
    )
    model: ModelConfig = option(ModelConfig(), "The network, its weights, and which of them may be pruned.")
    pretrain: PretrainConfig = option(
        PretrainConfig(), 'How the source network is trained. Only read if model.weights is "pretrain".'
    )
    data: DataConfig = option(DataConfig(), "The downstream data set.")
    mesh: MeshConfig = option(
        MeshConfig(),
        "The devices as a grid, data x fsdp. Batches are split over both axes; weights, scores, masks and optimizer "
        "moments over fsdp only. A run may be resumed with other values, and on another number of devices.",
    )
    prompt: PromptConfig = option(PromptConfig(), "The visual prompt, for the methods that have one.")
    mapping: MappingConfig = option(MappingConfig(), "Which source class stands for each class of the data set.")
    prune: PruneConfig = option(PruneConfig(), "Stage 1: scores and prompt are learned; the weights are frozen.")
    retrain: RetrainConfig = option(RetrainConfig(), "Stage 2: weights and prompt are learned; the mask is frozen.")
    tuning: TuningConfig = option(
        TuningConfig(),
        "Hyper-parameters that experiments.sweep chooses on validation.",
    )

    def to_json(self) -> dict[str, Any]:
        """Converts the configuration for config.json.

        Returns:
          Nested dicts of plain values.
        """
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
        """Selects the group of options that a method reads.

        Args:
          method: the method.

        Returns:
          An instance of `method.options`; None if the method has no options.
        """
        return getattr(self, method.options.group) if method.options else None

    @property
    def transferred_mask(self) -> str:
        """The file with the mask for method "transfer"; "" if there is none."""
        return self.options(method("transfer")).mask

    def make_prompt(self) -> Prompt:
        """Makes the configured prompt; see `PromptConfig.make`.

        Returns:
          The prompt.
        """
        return self.prompt.make()

    def check(self, path: str) -> None:
        """Checks that the groups fit together.

        Args:
          path: the name of the configuration, such as "config".

        Raises:
          UserError: they do not.
        """
        self._check_cells(path)
        self._check_methods(path)
        self._check_data(path)
        self._check_grids(path)

    def _check_cells(self, path: str) -> None:
        """Raises `UserError` if methods, densities or seeds are empty, repeat a value, or make too many cells."""
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
        """Raises `UserError` for a method that does not work with the rest of the config."""
        grain = sparsity.parse_granularity(self.granularity)
        if self.target and (grain.kind != "channel" or self.allocation != "global"):
            raise UserError(
                f"{path}.target is {self.target}, which needs {path}.granularity channel and {path}.allocation global; "
                f"found {self.granularity} and {self.allocation}"
            )
        for name in self.methods:
            chosen = method(name)
            if chosen.prompted and not chosen.training and self.prompt.stage == "prune":
                raise UserError(
                    f"{path}.prompt.stage is 'prune', where {name} learns nothing; it allows 'retrain' and 'both'"
                )
            if chosen.given and not self.transferred_mask:
                raise UserError(f"{path}.transfer.mask is ''; {name} takes the CELL.safetensors of an earlier run")
            if self.target and (chosen.given or chosen.layerwise):
                raise UserError(
                    f"{path}.target is {self.target}, which takes one threshold of scores; {name} has none, use another"
                )
            if grain.kind == "N:M" and chosen.gradual:
                raise UserError(f"{path}.granularity {grain} has one density, and {name} gets there by others")
            if chosen.training and chosen.training.rounds:
                options = self.options(chosen)
                options.check_rounds(min(self.densities), f"{path}.{options.group}")

    def _check_data(self, path: str) -> None:
        """Raises `UserError` if images do not fit the canvas, or a batch is too large for any memory."""
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
        """Raises `UserError` if two grids choose the same key of a method, or if a value in a grid is not allowed."""
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
    present = getattr(group, name) if name in known else None
    if rest and dataclasses.is_dataclass(present):
        value = _with_value(present, rest, value, key)
    elif rest or not isinstance(present, float):
        raise UserError(
            f"a grid over {key[:80]}: there is no such key that holds a float; configs/default.py lists all keys"
        )
    return dataclasses.replace(group, **{name: value})
