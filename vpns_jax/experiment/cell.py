"""One cell of an experiment: prune, retrain, evaluate, from its start or from where it was interrupted."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax import data, models, sparsity
from vpns_jax.analysis import flops, latency
from vpns_jax.analysis.density import density_report
from vpns_jax.data.decoding import AS_STORED, Decoding
from vpns_jax.errors import UserError
from vpns_jax.experiment import budget, pruning
from vpns_jax.experiment.config import Config
from vpns_jax.experiment.stages import Stages
from vpns_jax.experiment.workdir import Workdir
from vpns_jax.parallel import processes, sharding
from vpns_jax.prompting import create, label_mapping
from vpns_jax.pruners import Method, Problem, Settings, method
from vpns_jax.training import state as states
from vpns_jax.training import steps
from vpns_jax.training.batches import Split, sample
from vpns_jax.training.evaluation import Evaluation, estimate_mapping, evaluate
from vpns_jax.training.forward import Network
from vpns_jax.training.recorder import Progress, Recorder
from vpns_jax.training.state import Fixed, Subnetwork, TrainState

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
    """What all cells share. `source` has the head it was pretrained with; `mask` is the config's, if it names one.

    `decoding` says how the downstream images become pixels.
    """

    config: Config
    folder: Workdir
    progress: Progress
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    source: dict[str, PyTree]
    source_accuracy: float | None
    normalization: models.Normalization
    mask: PyTree | None = None
    # What was said in reading its weights.
    source_notes: tuple[str, ...] = ()
    decoding: Decoding = AS_STORED

    @property
    def source_classes(self) -> int:
        return self.source["params"][models.HEAD]["bias"].shape[0]

    def about(self, command: str) -> dict[str, Any]:
        """What the summary says of the whole experiment."""
        prunable = pruning.prunable(self.config, self.source["params"])
        return {
            "command": data.printable(command),
            "source": {
                "test_accuracy": self.source_accuracy,
                "normalization": dataclasses.asdict(self.normalization),
                "notes": list(self.source_notes),
            },
            "decoding": self.decoding.to_json(),
            "dense_parameters": sparsity.selection.count(self.source["params"]),
            "prunable": sparsity.selection.count(prunable),
            "classes": self.classes,
        }


class CellRun:
    """The parts of one cell that share its networks, keys and folders."""

    def __init__(self, setup: Setup, cell: Cell) -> None:
        self._setup, self._cell, self._config = setup, cell, setup.config
        self._method = method(cell.method)
        self._epochs = budget.epochs(setup.config, cell.method, cell.density)
        # By the seed alone: all methods and densities see the same batches in the same order.
        self._keys = dict(
            zip(
                ("prune", "retrain", "mapping", "head", "lot", "posthoc"),
                jax.random.split(jax.random.key(cell.seed), 6),
                strict=True,
            )
        )
        self._networks = {stage: _network(setup, self._method, stage) for stage in ("prune", "retrain", "posthoc")}
        self.network = self._networks["posthoc" if self._method.posthoc else "retrain"]
        self.recorder = Recorder(cell.name, setup.folder.log, setup.folder.tensorboard(cell.name), setup.progress)
        self._stages = Stages(
            self._config, setup.folder, cell.method, cell.name, self.recorder, setup.train, setup.val, self._keys
        )
        self._source = self._make_source()

    def problem(self) -> Problem:
        """The cell as its pruner sees it."""
        config = self._config
        first = steps.passes(config.protocol, prompted=self._networks["prune"].prompted)[0]
        return Problem(
            network=self._networks["prune"],
            source=self._source,
            kernels=pruning.prunable(config, self._source.weights),
            density=self._cell.density,
            pattern=pruning.pattern(config),
            key=self._keys["lot"],
            settings=Settings(config.scoring.temperature, config.synflow.rounds, config.imp.drop),
            train=config.prune.batch_norm != "frozen",
            map_labels=self._map_labels,
            batches=functools.partial(
                sample,
                self._setup.train,
                first,
                batch_size=config.data.batch_size,
                count=config.scoring.batches,
                key=self._keys["prune"],
            ),
            learn=self._learn,
            warm_up=self._warm_up,
            rounds=self._rounds,
            given=self._setup.mask,
            spend=lambda passes: self._stages.forward_passes.update({"prune": passes}),
        )

    def retrain(self, start: Subnetwork) -> tuple[TrainState, Fixed, Subnetwork]:
        """Stage 2. Returns the state after the last epoch, what was fixed, and the best network on validation."""
        config, network, epochs = self._config.retrain, self._networks["retrain"], self._epochs.retrain
        # What was learned while pruning goes on, unless the config says that one of the stages has no prompt.
        prompt = start.prompt if network.prompt == self._networks["prune"].prompt else network.prompt.init()
        rules = {"weights": config.weights, "prompt": config.prompt}
        task = self._stages.task("retrain", network, rules, epochs)
        state = states.create(
            task.rules, {"weights": start.weights, "prompt": prompt}, start.batch_stats, start.mapping
        )
        fixed = Fixed(weights={}, bits=sparsity.pack(start.mask), pruned=jnp.int32(0))
        state, fixed, self.best_epoch, best = self._stages.run_to_best("retrain", task, state, fixed, epochs)
        return state, fixed, best

    def fit_prompt(self, finished: Subnetwork) -> tuple[TrainState, Fixed, Subnetwork]:
        """The prompt alone, on a finished network that nothing changes; returns what `retrain` does."""
        network, epochs = self._networks["posthoc"], self._epochs.posthoc
        rules = {"prompt": self._config.retrain.prompt}
        task = self._stages.task("prompt", network, rules, epochs)
        learned = {"prompt": network.prompt.init()}
        state = states.create(task.rules, learned, finished.batch_stats, finished.mapping)
        fixed = Fixed(weights=finished.weights, bits=sparsity.pack(finished.mask), pruned=jnp.int32(0))
        state, fixed, self.best_epoch, best = self._stages.run_to_best("posthoc", task, state, fixed, epochs)
        return state, fixed, best

    def result(self, state: TrainState, fixed: Fixed, best: Subnetwork) -> dict[str, Any] | None:
        """The cell's entry in the summary; here, and only here, the test split is used.

        Of several processes the first one has it, and the others None.
        """
        tested = {"last": self._evaluate(steps.subnetwork(state, fixed)), "best": self._evaluate(best)}
        test = {which: _numbers(seen.accuracies()) for which, seen in tested.items()}
        calibration_error = _numbers(tested["best"].calibration_errors())
        mask = sharding.to_host(best.mask)
        if not processes.first():
            return None
        cell, rows, report = self._cell, self.recorder.rows(), density_report(mask, head=models.HEAD)
        # The stages in order: the last is what is judged.
        stages = tuple(dict.fromkeys(row["stage"] for row in rows))
        judged = [row for row in rows if row["stage"] in stages[-1:]]
        best_row = next((row for row in judged if row["epoch"] == self.best_epoch), None)
        if best_row is None:
            raise UserError(
                f"{self._setup.folder.log.path} has lost the row of {cell.name}, epoch {self.best_epoch}; remove "
                f"{self._setup.folder.checkpoints(cell.name, '')} to run the cell anew"
            )
        shapes = flops.kernels(self.network.model, image_size=self._config.prompt.canvas_size)
        scores = {
            "val": {
                "last": {way: judged[-1][f"val_{way}"] for way in ("plain", "prompted")},
                "best": {way: best_row[f"val_{way}"] for way in ("plain", "prompted")} | {"epoch": self.best_epoch},
            },
            "test": test,
            "calibration_error": calibration_error,
        }
        return {
            "cell": cell.name,
            **dataclasses.asdict(cell),
            "normalization": dataclasses.asdict(self._setup.normalization),
            "achieved_density": report.density,
            "density_without_head": report.density_without_head,
            "collapsed": list(report.collapsed),
            "layers": report.to_json()["layers"],
            "multiply_adds": flops.multiply_adds(shapes, report.layers, head=models.HEAD),
            **scores,
            "optimizer_steps": dict(self._stages.optimizer_steps),
            "forward_passes": dict(self._stages.forward_passes),
            **{
                kind: {stage: sum(row[kind] for row in rows if row["stage"] == stage) for stage in stages}
                for kind in ("seconds", "compile_seconds")
            },
        }

    def latency(self, best: Subnetwork, images: Any) -> dict[str, Any] | None:
        """The cell's measured speed on a plain batch, as `latency.compare` has it; None of a dense network."""
        if not self._method.sparse:
            return None
        # Laid out as evaluation has them, so that what it compiled is used again.
        best = sharding.replicate(best, jax.sharding.get_mesh())
        images = jax.device_put(images, sharding.batch_sharding())
        # Both multiply a mask onto the kernels: all that differs is what it holds.
        whole = dataclasses.replace(best, mask=jax.tree.map(jnp.ones_like, best.mask))
        dense, masked = (
            functools.partial(steps.predict, self.network, one, images, prompted=False) for one in (whole, best)
        )
        return latency.compare(dense, masked) | {"batch_size": len(images)}

    def _make_source(self) -> Subnetwork:
        """The pretrained network with its prompt at the start, and a new head where one is asked for."""
        weights, stats = self._setup.source["params"], self._setup.source.get("batch_stats", {})
        classes, network = len(self._setup.classes), self._networks["prune"]
        if self._config.mapping.kind == "head":
            size = self._config.prompt.canvas_size
            fresh = models.new_head(network.model, self._keys["head"], image_size=size)
            weights = {**weights, models.HEAD: fresh}
        return Subnetwork(
            weights=weights,
            mask={},
            batch_stats=stats,
            prompt=network.prompt.init(),
            mapping=jnp.arange(classes, dtype=jnp.int32),
        )

    def _map_labels(self, source: Subnetwork, mask: PyTree) -> jax.Array:
        """The label mapping at the start, on the sparse network or the dense one."""
        classes, network = len(self._setup.classes), self._networks["prune"]
        if self._config.mapping.kind == "head":
            return jnp.arange(classes, dtype=jnp.int32)
        if self._config.mapping.kind == "random":
            return label_mapping.random(self._keys["mapping"], self._setup.source_classes, classes)
        if self._config.mapping.network == "sparse":
            source = dataclasses.replace(source, mask=mask)
        return estimate_mapping(network, source, self._setup.train, batch_size=self._config.data.batch_size)

    def _learn(
        self, groups: dict[str, PyTree], start: Subnetwork, pattern: sparsity.Pattern
    ) -> tuple[TrainState, Fixed]:
        """Stage 1 from `groups` of parameters; the prompt and a new head are learned beside them."""
        config, bip, epochs = self._config.prune, self._config.bip, self._epochs.prune
        learned = {**groups, "prompt": start.prompt}
        rules = {"scores": config.scores, "prompt": config.prompt}
        if "weights" in groups:
            rules |= {"scores": bip.scores, "weights": bip.weights}
        elif self._config.mapping.kind == "head":
            rules["head"] = config.head
            learned["head"] = start.weights[models.HEAD]
        stage = "bilevel" if "weights" in groups else "prune"
        task = self._stages.task(stage, self._networks["prune"], rules, epochs)
        state = states.create(task.rules, learned, start.batch_stats, start.mapping)
        pruned = sparsity.pruned_groups(pattern, groups["scores"], self._cell.density)
        frozen = {} if "weights" in groups else start.weights
        fixed = Fixed(weights=frozen, bits={}, pruned=jax.tree.map(jnp.int32, pruned), pattern=pattern)
        with self._stages.open("prune") as files:
            return self._stages.run("prune", task, state, fixed, epochs, files)

    def _warm_up(self, start: Subnetwork) -> Subnetwork:
        """What the rounds of iterative pruning rewind to: `start` after the first epochs of dense training."""
        epochs = self._config.imp.rewind_epochs
        if not epochs:
            return start
        task, state, fixed = self._round(start, start.mask)
        with self._stages.open("rewind") as files:
            state, fixed = self._stages.run("prune", task, state, fixed, epochs, files)
        return steps.subnetwork(state, fixed)

    def _rounds(
        self, start: Subnetwork, densities: tuple[float, ...], drop: Callable[[Subnetwork, float], PyTree]
    ) -> PyTree:
        """The rounds of iterative pruning, which share one folder: the newest checkpoint holds its round's mask."""
        mask, rewind, epochs = start.mask, self._config.imp.rewind_epochs, self._epochs.round
        with self._stages.open("prune") as files:
            for number, density in enumerate(densities):
                begin = rewind + number * epochs
                end = begin + epochs
                task, state, fixed = self._round(start, mask)
                if files.checkpoints.newest_epoch() > end:
                    # All that came of this round is the mask of a later one, whose checkpoint has it.
                    self._stages.skip("prune", task, epochs)
                    continue
                state, fixed = self._stages.run("prune", task, state, fixed, end, files, start=begin)
                mask = drop(steps.subnetwork(state, fixed), density)
        return mask

    def _round(self, start: Subnetwork, mask: PyTree) -> tuple[steps.Task, TrainState, Fixed]:
        """Training as a round of iterative pruning has it, at its beginning."""
        rules = {"weights": self._config.retrain.weights, "prompt": self._config.retrain.prompt}
        task = self._stages.task("retrain", self._networks["prune"], rules, self._epochs.round)
        learned = {"weights": start.weights, "prompt": start.prompt}
        state = states.create(task.rules, learned, start.batch_stats, start.mapping)
        return task, state, Fixed(weights={}, bits=sparsity.pack(mask), pruned=jnp.int32(0))

    def _evaluate(self, subnetwork: Subnetwork) -> Evaluation:
        return evaluate(self.network, subnetwork, self._setup.test, batch_size=self._config.data.batch_size)


def _numbers(values: dict[str, jax.Array | None]) -> dict[str, float | None]:
    return {way: None if value is None else float(value) for way, value in values.items()}


def _network(setup: Setup, chosen: Method, stage: str) -> Network:
    """The static half of f(theta * m; x') in a stage. The reference protocol keeps plain images at their own size."""
    config = setup.config
    classes = len(setup.classes) if config.mapping.kind == "head" else setup.source_classes
    blank = create("none", canvas_size=config.prompt.canvas_size)
    return Network(
        model=models.create(config.model.name, num_classes=classes, **config.model.options),
        prompt=config.make_prompt() if budget.has_prompt(config, chosen, stage) else blank,
        plain=blank if config.protocol == "paper" else None,
        mean=setup.normalization.mean,
        std=setup.normalization.std,
    )
