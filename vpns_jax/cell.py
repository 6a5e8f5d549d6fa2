"""One cell of an experiment: prune, retrain, evaluate, from its start or from where it was interrupted."""

import contextlib
import dataclasses
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax import models, sparsity
from vpns_jax.analysis.density import density_report
from vpns_jax.config import Config
from vpns_jax.prompting import create, label_mapping
from vpns_jax.pruners import METHODS, Method, Problem
from vpns_jax.training import optim, steps
from vpns_jax.training import state as states
from vpns_jax.training.batches import Resident, Split
from vpns_jax.training.checkpoints import Checkpoints
from vpns_jax.training.evaluation import estimate_mapping, evaluate
from vpns_jax.training.forward import Network
from vpns_jax.training.loop import Within, run_stage
from vpns_jax.training.recorder import Progress, Recorder
from vpns_jax.training.state import Fixed, Subnetwork, TrainState
from vpns_jax.workdir import Workdir

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
class Setup:
    """What all cells share. `source` has the head it was pretrained with."""

    config: Config
    folder: Workdir
    progress: Progress
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    source: dict[str, PyTree]
    source_accuracy: float | None

    @property
    def source_classes(self) -> int:
        return self.source["params"][models.HEAD]["bias"].shape[0]

    def about(self, command: str) -> dict[str, Any]:
        """What the summary says of the whole experiment."""
        kernels = prunable_kernels(self.config, self.source["params"])
        return {
            "command": command,
            "source": {"test_accuracy": self.source_accuracy},
            "dense_parameters": sparsity.selection.count(self.source["params"]),
            "prunable": sparsity.selection.count(kernels),
        }


class CellRun:
    """The parts of one cell that share its network, keys and folders."""

    def __init__(self, setup: Setup, cell: Cell) -> None:
        self._setup, self._cell, self._config = setup, cell, setup.config
        self._method = METHODS[cell.method]
        # By the seed alone: all methods and densities see the same batches in the same order.
        self._keys = dict(
            zip(
                ("prune", "retrain", "mapping", "head"),
                jax.random.split(jax.random.key(cell.seed), 4),
                strict=True,
            )
        )
        self.network = _network(setup, self._method)
        self.recorder = Recorder(cell.name, setup.folder.log, setup.folder.tensorboard(cell.name), setup.progress)
        self._source = self._make_source()
        self._passes = len(steps.PROTOCOLS[self._config.protocol])
        self._iterations = setup.train.size // self._config.data.batch_size

    def problem(self) -> Problem:
        """The cell as its pruner sees it."""
        kernels = prunable_kernels(self._config, self._source.weights)
        if self._config.mapping.kind == "head":
            kernels = {name: branch for name, branch in kernels.items() if name != models.HEAD}
        return Problem(
            source=self._source,
            kernels=kernels,
            pruned=sparsity.pruned_count(kernels, self._cell.density),
            map_labels=self._map_labels,
            learn=self._learn,
        )

    def retrain(self, start: Subnetwork) -> tuple[TrainState, Fixed, Subnetwork]:
        """Stage 2. Returns the state after the last epoch, what was fixed, and the best network on validation."""
        config = self._config.retrain
        task = self._task("retrain", {"weights": config.weights, "prompt": config.prompt}, config.epochs)
        learned = {"weights": start.weights, "prompt": start.prompt}
        state = states.create(task.rules, learned, start.batch_stats, start.mapping)
        fixed = Fixed(weights={}, mask=start.mask, pruned=jnp.int32(0))
        with self._checkpoints("retrain") as checkpoints, self._within("retrain") as within:
            state, fixed = self._run_stage(task, state, fixed, config.epochs, checkpoints, within)
            self.best_epoch, (best, _) = checkpoints.best((state, fixed.mask))
        return state, fixed, steps.subnetwork(best, fixed)

    def result(self, state: TrainState, fixed: Fixed, best: Subnetwork) -> dict[str, Any]:
        """The cell's entry in the summary; here, and only here, the test split is used."""
        cell, rows, report = self._cell, self.recorder.rows(), density_report(best.mask, head=models.HEAD)
        retrained = [row for row in rows if row["stage"] == "retrain"]
        best_row = next(row for row in retrained if row["epoch"] == self.best_epoch)
        scores = {
            "val": {
                "last": {way: retrained[-1][f"val_{way}"] for way in ("plain", "prompted")},
                "best": {way: best_row[f"val_{way}"] for way in ("plain", "prompted")} | {"epoch": self.best_epoch},
            },
            "test": {
                "last": self._test_accuracies(steps.subnetwork(state, fixed)),
                "best": self._test_accuracies(best),
            },
        }
        stages = ("prune", "retrain") if self._method.trains else ("retrain",)
        epochs = {"prune": self._config.prune.epochs, "retrain": self._config.retrain.epochs}
        updates = {stage: epochs[stage] * self._iterations * self._passes for stage in stages}
        return {
            "cell": cell.name,
            **dataclasses.asdict(cell),
            "achieved_density": report.density,
            "density_without_head": report.density_without_head,
            "collapsed": list(report.collapsed),
            "layers": report.to_json()["layers"],
            **scores,
            "optimizer_steps": updates,
            "forward_passes": updates,
            **{
                kind: {stage: sum(row[kind] for row in rows if row["stage"] == stage) for stage in stages}
                for kind in ("seconds", "compile_seconds")
            },
        }

    def _make_source(self) -> Subnetwork:
        """The pretrained network with its prompt at the start, and a new head where one is asked for."""
        weights, stats = self._setup.source["params"], self._setup.source.get("batch_stats", {})
        classes = len(self._setup.classes)
        if self._config.mapping.kind == "head":
            size = self._config.prompt.canvas_size
            fresh = self.network.model.init(self._keys["head"], jnp.zeros((1, size, size, 3)))
            weights = {**weights, models.HEAD: fresh["params"][models.HEAD]}
        return Subnetwork(
            weights=weights,
            mask={},
            batch_stats=stats,
            prompt=self.network.prompt.init(),
            mapping=jnp.arange(classes, dtype=jnp.int32),
        )

    def _map_labels(self, source: Subnetwork, mask: PyTree) -> jax.Array:
        """The label mapping at the start, on the sparse network or the dense one."""
        classes = len(self._setup.classes)
        if self._config.mapping.kind == "head":
            return jnp.arange(classes, dtype=jnp.int32)
        if self._config.mapping.kind == "random":
            return label_mapping.random(self._keys["mapping"], self._setup.source_classes, classes)
        if self._config.mapping.network == "sparse":
            source = dataclasses.replace(source, mask=mask)
        return estimate_mapping(self.network, source, self._setup.train, batch_size=self._config.data.batch_size)

    def _learn(self, groups: dict[str, PyTree], start: Subnetwork) -> tuple[TrainState, Fixed]:
        """Stage 1 from `groups` of parameters; the prompt and a new head are learned beside them."""
        config = self._config.prune
        rules = {"scores": config.scores, "prompt": config.prompt}
        learned = {**groups, "prompt": start.prompt}
        if self._config.mapping.kind == "head":
            rules["head"] = config.head
            learned["head"] = start.weights[models.HEAD]
        task = self._task("prune", rules, config.epochs)
        state = states.create(task.rules, learned, start.batch_stats, start.mapping)
        pruned = sparsity.pruned_count(groups["scores"], self._cell.density)
        fixed = Fixed(weights=start.weights, mask={}, pruned=jnp.int32(pruned))
        with self._checkpoints("prune") as checkpoints, self._within("prune") as within:
            return self._run_stage(task, state, fixed, config.epochs, checkpoints, within)

    def _task(self, stage: str, rules: dict[str, Any], epochs: int) -> steps.Task:
        updates = {
            # The prompt moves in prompted passes only, everything else in all of them.
            group: self._iterations * (1 if group == "prompt" else self._passes)
            for group in rules
        }
        made: dict[str, optim.Rule] = {
            group: rule.rule(epochs=epochs, updates_per_epoch=updates[group]) for group, rule in rules.items()
        }
        return steps.Task(
            stage=stage,
            network=self.network,
            protocol=self._config.protocol,
            batch_norm=self._config.prune.batch_norm if stage == "prune" else "update",
            batch_size=self._config.data.batch_size,
            rules=tuple(made.items()),
        )

    def _run_stage(
        self,
        task: steps.Task,
        state: TrainState,
        fixed: Fixed,
        epochs: int,
        checkpoints: Checkpoints,
        within: Within | None,
    ) -> tuple[TrainState, Fixed]:
        return run_stage(
            task,
            state,
            fixed,
            self._setup.train,
            self._setup.val,
            epochs=epochs,
            key=self._keys[task.stage],
            remap=self._config.mapping.kind == "iterative",
            checkpoints=checkpoints,
            save_every=self._config.checkpoint_every_epochs,
            within=within,
            recorder=self.recorder,
        )

    @contextlib.contextmanager
    def _within(self, stage: str) -> Iterator[Within | None]:
        """Checkpoints within epochs, where data stream in."""
        every = self._config.checkpoint_every_steps
        if not every or isinstance(self._setup.train, Resident):
            yield None
            return
        with self._checkpoints(f"{stage}-within", keep_best=False) as checkpoints:
            yield Within(checkpoints, every)

    def _checkpoints(self, stage: str, *, keep_best: bool = True) -> Checkpoints:
        # The density is part of the cell's name, so of the folder, and so of what is resumed.
        fingerprint = f"{self._config.fingerprint()}-{zlib.crc32(self._cell.name.encode()):08x}"
        folder = self._setup.folder.checkpoints(self._cell.name, stage)
        return Checkpoints(folder, fingerprint, keep_best=keep_best)

    def _test_accuracies(self, subnetwork: Subnetwork) -> dict[str, float | None]:
        seen = evaluate(self.network, subnetwork, self._setup.test, batch_size=self._config.data.batch_size)
        return {way: None if value is None else float(value) for way, value in seen.accuracies().items()}


def _network(setup: Setup, method: Method) -> Network:
    """The static half of f(theta * m; x'). The reference protocol keeps plain images at their own size."""
    config = setup.config
    classes = len(setup.classes) if config.mapping.kind == "head" else setup.source_classes
    mean, std = models.normalisation(config.model.name)
    blank = create("none", canvas_size=config.prompt.canvas_size)
    return Network(
        model=models.create(config.model.name, num_classes=classes, **config.model.options),
        prompt=config.make_prompt() if method.prompted else blank,
        plain=blank if config.protocol == "paper" else None,
        mean=mean,
        std=std,
    )


def prunable_kernels(config: Config, weights: PyTree) -> PyTree:
    return models.prunable(weights, include=config.model.prune_include, exclude=config.model.prune_exclude)
