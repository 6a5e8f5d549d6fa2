"""Which keys a configuration has and of which type; `configs/default.py` gives each its value and says what it means.

Immutable once made; no module below the constructors reads a config by key.
"""

import dataclasses
import hashlib
import json
from typing import Any

from vpns_jax.errors import UserError
from vpns_jax.prompting import Prompt, create
from vpns_jax.pruners import bip, given_mask, imp, scoring, synflow
from vpns_jax.training.optimizers import Optimizer


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The backbone, its weights, and what of it may be pruned."""

    name: str
    options: dict[str, Any]
    weights: str
    prune_include: tuple[str, ...]
    prune_exclude: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """How the source network is trained here, where `model.weights` is "pretrain"."""

    data: str
    epochs: int
    batch_size: int
    seed: int
    weights: Optimizer


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The downstream data set."""

    name: str
    image_size: int
    batch_size: int
    val_fraction: float
    directory: str
    budget_gib: float
    workers: int


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How the devices are laid out; see `sharding.make_mesh`."""

    data: int
    fsdp: int


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """The visual prompt of the methods that have one; see `prompting.create`."""

    kind: str
    canvas_size: int
    pad_size: int
    patch_size: int
    parametrisation: str
    clamp: str
    stage: str


@dataclasses.dataclass(frozen=True)
class MappingConfig:
    """The label mapping, and the network it is first estimated on."""

    kind: str
    network: str


@dataclasses.dataclass(frozen=True)
class PruneConfig:
    """Stage 1."""

    epochs: int
    batch_norm: str
    scores: Optimizer
    prompt: Optimizer
    head: Optimizer


@dataclasses.dataclass(frozen=True)
class RetrainConfig:
    """Stage 2."""

    epochs: int
    weights: Optimizer
    prompt: Optimizer


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """Values of one key for methods to choose from."""

    methods: tuple[str, ...]
    key: str
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class TuningConfig:
    """What sweeps choose on validation before they run; see `experiments.tuning`."""

    density: float
    seed: int
    grids: tuple[GridConfig, ...]


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole experiment: every method at every density with every seed."""

    name: str
    methods: tuple[str, ...]
    densities: tuple[float, ...]
    seeds: tuple[int, ...]
    protocol: str
    budget: str
    granularity: str
    allocation: str
    model: ModelConfig
    pretrain: PretrainConfig
    data: DataConfig
    mesh: MeshConfig
    prompt: PromptConfig
    mapping: MappingConfig
    prune: PruneConfig
    scoring: scoring.Options
    synflow: synflow.Options
    imp: imp.Options
    bip: bip.Options
    transfer: given_mask.Options
    retrain: RetrainConfig
    tuning: TuningConfig
    checkpoint_every_epochs: int
    checkpoint_every_steps: int

    def to_json(self) -> dict[str, Any]:
        """Plain nested dicts, as written beside the results."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def identity(self) -> dict[str, Any]:
        """What a run may not change once it has begun: all but the devices, on any number of which it can go on."""
        return {key: value for key, value in self.to_json().items() if key != "mesh"}

    def fingerprint(self) -> str:
        """Names this configuration: SHA-256 of its identity's JSON."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    def with_value(self, key: str, value: float) -> "Config":
        """This configuration with another value for a key such as "prune.scores.learning_rate".

        Raises:
          UserError: there is no such key, or it is not a float.
        """
        return _with_value(self, key.split("."), value, f"config.{key}")

    def make_prompt(self) -> Prompt:
        """The configured prompt."""
        return create(
            self.prompt.kind,
            canvas_size=self.prompt.canvas_size,
            pad_size=self.prompt.pad_size,
            patch_size=self.prompt.patch_size,
            parametrisation=self.prompt.parametrisation or None,
            clamp=self.prompt.clamp,
        )


def _with_value(group: Any, path: list[str], value: float, key: str) -> Any:
    name, *rest = path
    known = [field.name for field in dataclasses.fields(group)] if dataclasses.is_dataclass(group) else []
    found = getattr(group, name) if name in known else None
    if rest and dataclasses.is_dataclass(found):
        value = _with_value(found, rest, value, key)
    elif rest or not isinstance(found, float):
        raise UserError(
            f"a grid over {key}: there is no such key that holds a float; configs/default.py lists all keys"
        )
    return dataclasses.replace(group, **{name: value})
