"""One cell of an experiment: prune, retrain, evaluate. It starts, or resumes from its newest checkpoints."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax import data, models, sparsity
from vpns_jax.data.decoding import AS_STORED, Decoding
from vpns_jax.deploy import Description
from vpns_jax.experiment import pruning, result
from vpns_jax.experiment.config import Config
from vpns_jax.experiment.plan import Cell, network, plan
from vpns_jax.experiment.workdir import Workdir
from vpns_jax.parallel import processes, sharding
from vpns_jax.pruners import Problem
from vpns_jax.pruners.first_mapping import FrequencyMapping, NewHead, RandomMapping
from vpns_jax.pruners.problem import FirstMapping
from vpns_jax.training.batches import Split, iterations_of
from vpns_jax.training.network import Network, Subnetwork
from vpns_jax.training.recorder import Progress, Recorder
from vpns_jax.training.runner import Runner
from vpns_jax.training.stage import learn_prompt, learn_weights

PyTree = Any
# The names of a cell's random keys. "prune" also draws the batches on which a pruner scores weights.
KEYS = ("prune", "retrain", "mapping", "head", "random", "posthoc")


@jax.jit
def _split(key: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(jax.random.split(key, len(KEYS)))


@dataclasses.dataclass(frozen=True)
class Setup:
    """What all cells share.

    Attributes:
      config: the configuration.
      folder: the run's folder.
      progress: the progress bar.
      classes: names of the target classes.
      train: the training split.
      val: the validation split.
      test: the test split.
      source: variables of the pretrained network, with its pretrained head.
      source_accuracy: the test accuracy of the pretrained network on its own data; None if it is not known.
      normalization: the mean and the standard deviation by which images are normalized.
      mask: the mask of method "transfer"; None if no method needs one.
      source_notes: remarks from reading the weights.
      decoding: how the downstream images become pixels.
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
    source_notes: tuple[str, ...] = ()
    decoding: Decoding = AS_STORED

    @property
    def source_classes(self) -> int:
        """The number of classes of the pretrained head."""
        return self.source["params"][models.HEAD]["bias"].shape[0]

    def about(self, command: str) -> dict[str, Any]:
        """Describes the whole experiment.

        Args:
          command: the command that runs it again.

        Returns:
          Entries of the summary.
        """
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


@dataclasses.dataclass(frozen=True)
class Trained:
    """The networks after a stage that trains the weights, or a prompt alone.

    Attributes:
      last: the network after the last epoch.
      best: the network with the best validation accuracy.
      epoch: the number of the epoch after which `best` was saved.
    """

    last: Subnetwork
    best: Subnetwork
    epoch: int


class CellRun:
    """One cell while it runs: its plan, the network of each stage, its random keys and its runner."""

    def __init__(self, setup: Setup, cell: Cell) -> None:
        """Plans a cell and makes its runner.

        Args:
          setup: what all cells share.
          cell: the cell.

        Raises:
          UserError: the budget leaves a stage no epoch.
        """
        classes = len(setup.classes) if setup.config.mapping.kind == "head" else setup.source_classes
        self._setup, self.plan = setup, plan(setup.config, cell, classes=classes)
        # Keys depend on the seed alone, so all methods and densities see the same batches in the same order.
        self._keys = dict(zip(KEYS, _split(jax.random.key(cell.seed)), strict=True))
        self._networks = {
            stage: network(setup.config, prompt, setup.normalization, classes=classes)
            for stage, prompt in self.plan.prompts.items()
        }
        self.recorder = Recorder(cell.name, setup.folder.log, setup.folder.tensorboard(cell.name), setup.progress)
        self.runner = Runner(
            train=setup.train,
            val=setup.val,
            directory=setup.folder.checkpoints(cell.name),
            fingerprint=setup.folder.fingerprint(cell.method, cell.name),
            keys=self._keys,
            recorder=self.recorder,
            remap=self.plan.mapping == "iterative",
            save_every=self.plan.save_every,
            save_within=self.plan.save_within,
        )

    @property
    def network(self) -> Network:
        """The static half of the finished network."""
        return self._networks["posthoc" if self.plan.method.posthoc else "retrain"]

    def problem(self) -> Problem:
        """Makes the problem that the pruner solves.

        Returns:
          The problem: pretrained network, data, density and options.
        """
        source = self._source()
        return Problem(
            network=self._networks["prune"],
            source=source,
            prunable=pruning.prunable(self._setup.config, source.weights),
            density=self.plan.cell.density,
            pattern=self.plan.pattern,
            key=self._keys["random"],
            scoring_key=self._keys["prune"],
            train=self._setup.train,
            mapping=self._first_mapping(),
            prune=self.plan.prune,
            retrain=self.plan.retrain,
            options=self.plan.options,
            given=self._setup.mask,
        )

    def prune(self) -> Subnetwork:
        """Runs stage prune with the cell's pruner.

        Returns:
          The pruned network.
        """
        return self.plan.method.prune(self.problem(), self.runner)

    def retrain(self, start: Subnetwork) -> Trained:
        """Runs stage retrain: trains the weights under the mask, and the prompt.

        Args:
          start: the pruned network.

        Returns:
          The trained networks.
        """
        network = self._networks["retrain"]
        # The prompt learned in stage prune is kept, unless one of the stages has no prompt (`config.prompt.stage`).
        if network.prompt != self._networks["prune"].prompt:
            start = dataclasses.replace(start, prompt=network.prompt.init())
        stage, state = learn_weights(network, start, self.plan.retrain, self._iterations)
        state, epoch, best = self.runner.run_to_best("retrain", stage, state, self.plan.epochs.retrain)
        return Trained(stage.subnetwork(state), best, epoch)

    def fit_prompt(self, finished: Subnetwork) -> Trained:
        """Fits a prompt alone to a finished network, which stays as it is.

        Args:
          finished: the network.

        Returns:
          The network with the prompts of the last and the best epoch.
        """
        stage, state = learn_prompt(self._networks["posthoc"], finished, self.plan.posthoc, self._iterations)
        state, epoch, best = self.runner.run_to_best("posthoc", stage, state, self.plan.epochs.posthoc)
        return Trained(stage.subnetwork(state), best, epoch)

    def result(self, trained: Trained) -> dict[str, Any] | None:
        """Evaluates the networks on the test split, by which nothing is decided.

        Args:
          trained: the trained networks.

        Returns:
          The cell's entry in the summary. If there are several processes, None in all but the first.
        """
        setup = self._setup
        tested = {
            "last": result.evaluated(self.network, trained.last, setup.test, self.plan.retrain.batch_size),
            "best": result.evaluated(self.network, trained.best, setup.test, self.plan.retrain.batch_size),
        }
        nonzero = float(sparsity.nonzero(trained.best.weights, sparsity.counted(trained.best.mask)))
        mask = sharding.to_host(trained.best.mask)
        if not processes.is_primary():
            return None
        counts = {
            "optimizer_steps": dict(self.runner.optimizer_steps),
            "forward_passes": dict(self.runner.forward_passes),
        }
        rows = result.Rows(self.recorder.rows(), trained.epoch, setup.folder, self.plan.cell.name)
        entry = result.entry(self.plan, self.network, mask, tested, rows, counts)
        reached = result.target_reached(self.plan, entry.get("shrunk", {}))
        notes = [*self.runner.notes, *reached, *result.already_sparse(entry["achieved_density"], nonzero)]
        return entry | {
            "nonzero_density": nonzero,
            "normalization": dataclasses.asdict(setup.normalization),
            "notes": notes,
        }

    def description(self, entry: dict[str, Any]) -> Description:
        """Describes the finished network; the description is written to its file.

        Args:
          entry: the cell's entry in the summary.

        Returns:
          The description.
        """
        config, setup = self._setup.config, self._setup
        return Description(
            model=config.model.name,
            options=config.model.options,
            prompt=self.network.prompt,
            plain_on_canvas=self.network.plain is not None,
            image_size=config.data.image_size,
            mean=self.network.mean,
            std=self.network.std,
            classes=setup.classes,
            decoding=setup.decoding,
            origin={
                **dataclasses.asdict(self.plan.cell),
                "cell": self.plan.cell.name,
                "protocol": config.protocol,
                "mapping": self.plan.mapping,
                "dataset": data.printable(config.data.name),
                "accuracy": {"val": entry["val"]["best"], "test": entry["test"]["best"]},
                "inputs": setup.folder.digests(self.plan.cell.method),
                "versions": result.versions(),
            },
        )

    @property
    def _iterations(self) -> int:
        return iterations_of(self._setup.train, self.plan.retrain.batch_size)

    def _source(self) -> Subnetwork:
        """The pretrained network with an initial prompt, and with a new head if the plan asks for one."""
        weights, stats = self._setup.source["params"], self._setup.source.get("batch_stats", {})
        network = self._networks["prune"]
        if self.plan.mapping == "head":
            size = network.prompt.canvas_size
            weights = {**weights, models.HEAD: models.new_head(network.model, self._keys["head"], image_size=size)}
        mapping = jnp.arange(len(self._setup.classes), dtype=jnp.int32)
        return Subnetwork(weights=weights, mask={}, batch_stats=stats, prompt=network.prompt.init(), mapping=mapping)

    def _first_mapping(self) -> FirstMapping:
        if self.plan.mapping == "head":
            return NewHead()
        if self.plan.mapping == "random":
            return RandomMapping(self._keys["mapping"], self._setup.source_classes)
        return FrequencyMapping(sparse=self.plan.sparse_mapping)
