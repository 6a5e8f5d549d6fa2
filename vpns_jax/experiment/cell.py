"""One cell of an experiment: prune, retrain, evaluate, from its start or from where it was interrupted."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax import data, models, sparsity
from vpns_jax.analysis import latency
from vpns_jax.data.decoding import AS_STORED, Decoding
from vpns_jax.deploy import Description
from vpns_jax.experiment import pruning, result
from vpns_jax.experiment.config import Config
from vpns_jax.experiment.plan import Cell, network, plan
from vpns_jax.experiment.workdir import Workdir
from vpns_jax.parallel import processes, sharding
from vpns_jax.pruners import Problem
from vpns_jax.pruners.problem import ByFrequency, ByLot, FirstMapping, NewHead
from vpns_jax.training.batches import Split
from vpns_jax.training.network import Network, Subnetwork, predict
from vpns_jax.training.recorder import Progress, Recorder
from vpns_jax.training.runner import Runner
from vpns_jax.training.stage import learn_prompt, learn_weights

PyTree = Any
KEYS = ("prune", "retrain", "mapping", "head", "lot", "posthoc")


@dataclasses.dataclass(frozen=True)
class Setup:
    """What all cells share.

    Attributes:
      config: as run.
      folder: of the run.
      progress: its bar.
      classes: names of the target classes.
      train, val, test: the splits.
      source: variables of the pretrained network, with the head that it was pretrained with.
      source_accuracy: on its own test split; None where that is not known.
      normalization: what images are normalized by.
      mask: the config's, if it names one.
      source_notes: what was said in reading the weights.
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
        """Classes of the pretrained head."""
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


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training the weights, or the prompt alone, has come to.

    Attributes:
      last: the network after the last epoch.
      best: the one that is best on validation, of epoch `epoch`.
    """

    last: Subnetwork
    best: Subnetwork
    epoch: int


class CellRun:
    """One cell at work: its plan, its networks, its keys and its runner."""

    def __init__(self, setup: Setup, cell: Cell) -> None:
        self._setup, self.plan = setup, plan(setup.config, cell)
        # By the seed alone: all methods and densities see the same batches in the same order.
        keys = jax.random.split(jax.random.key(cell.seed), len(KEYS))
        self._keys = dict(zip(KEYS, keys, strict=True))
        classes = len(setup.classes) if self.plan.mapping == "head" else setup.source_classes
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
        """The cell as its pruner sees it."""
        source = self._source()
        return Problem(
            network=self._networks["prune"],
            source=source,
            prunable=pruning.prunable(self._setup.config, source.weights),
            density=self.plan.cell.density,
            pattern=self.plan.pattern,
            key=self._keys["lot"],
            scoring_key=self._keys["prune"],
            train=self._setup.train,
            mapping=self._first_mapping(),
            prune=self.plan.prune,
            retrain=self.plan.retrain,
            options=self.plan.options,
            given=self._setup.mask,
        )

    def prune(self) -> Subnetwork:
        """Stage 1, whatever the method makes of it."""
        return self.plan.method.prune(self.problem(), self.runner)

    def retrain(self, start: Subnetwork) -> Trained:
        """Stage 2: the weights under the mask of `start`, and the prompt."""
        network = self._networks["retrain"]
        # What was learned while pruning goes on, unless the config says that one of the stages has no prompt.
        if network.prompt != self._networks["prune"].prompt:
            start = dataclasses.replace(start, prompt=network.prompt.init())
        stage, state = learn_weights(network, start, self.plan.retrain, self._iterations)
        state, epoch, best = self.runner.run_to_best("retrain", stage, state, self.plan.epochs.retrain)
        return Trained(stage.subnetwork(state), best, epoch)

    def fit_prompt(self, finished: Subnetwork) -> Trained:
        """The prompt alone, on a finished network that nothing changes."""
        stage, state = learn_prompt(self._networks["posthoc"], finished, self.plan.posthoc, self._iterations)
        state, epoch, best = self.runner.run_to_best("posthoc", stage, state, self.plan.epochs.posthoc)
        return Trained(stage.subnetwork(state), best, epoch)

    def result(self, trained: Trained) -> dict[str, Any] | None:
        """The cell's entry in the summary; here, and only here, the test split is used.

        Returns:
          None in all processes but the first, if there are several.
        """
        setup = self._setup
        tested = {
            "last": result.evaluated(self.network, trained.last, setup.test, self.plan.retrain.batch_size),
            "best": result.evaluated(self.network, trained.best, setup.test, self.plan.retrain.batch_size),
        }
        nonzero = float(sparsity.nonzero(trained.best.weights, trained.best.mask))
        mask = sharding.to_host(trained.best.mask)
        if not processes.first():
            return None
        counts = {
            "optimizer_steps": dict(self.runner.optimizer_steps),
            "forward_passes": dict(self.runner.forward_passes),
        }
        rows = result.Rows(self.recorder.rows(), trained.epoch, setup.folder, self.plan.cell.name)
        entry = result.entry(self.plan, self.network, mask, tested, rows, counts)
        notes = [*self.runner.notes, *result.already_sparse(entry["achieved_density"], nonzero)]
        return entry | {
            "nonzero_density": nonzero,
            "normalization": dataclasses.asdict(setup.normalization),
            "notes": notes,
        }

    def description(self, entry: dict[str, Any]) -> Description:
        """What the finished network's file says of it, once `entry` is its entry in the summary."""
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

    def latency(self, best: Subnetwork, images: Any) -> dict[str, Any] | None:
        """The cell's measured speed on a plain batch, as `latency.compare` has it; None of a dense network."""
        if not self.plan.method.sparse:
            return None
        # Laid out as evaluation has them, so that what it compiled is used again.
        best = sharding.replicate(best, jax.sharding.get_mesh())
        images = jax.device_put(images, sharding.batch_sharding())
        # Both multiply a mask onto the kernels: all that differs is what it holds.
        whole = dataclasses.replace(best, mask=jax.tree.map(jnp.ones_like, best.mask))
        dense, masked = (functools.partial(predict, self.network, one, images, prompted=False) for one in (whole, best))
        return latency.compare(dense, masked) | {"batch_size": len(images)}

    @property
    def _iterations(self) -> int:
        return self._setup.train.size // self.plan.retrain.batch_size

    def _source(self) -> Subnetwork:
        """The pretrained network with its prompt at the start, and a new head where one is asked for."""
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
            return ByLot(self._keys["mapping"], self._setup.source_classes)
        return ByFrequency(sparse=self.plan.sparse_mapping)
