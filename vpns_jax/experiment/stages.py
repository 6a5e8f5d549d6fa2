"""The stages of one cell: each is a task made from the config, run by the one loop, kept in its own folder, counted."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax

from vpns_jax.experiment.config import Config
from vpns_jax.experiment.workdir import Workdir
from vpns_jax.training import optim, steps
from vpns_jax.training.batches import Resident, Split
from vpns_jax.training.checkpoints import Checkpoints
from vpns_jax.training.forward import Network
from vpns_jax.training.loop import Within, run_stage
from vpns_jax.training.recorder import Recorder
from vpns_jax.training.state import Fixed, Subnetwork, TrainState


@dataclasses.dataclass(frozen=True)
class Files:
    """The open checkpoints of a stage."""

    checkpoints: Checkpoints
    within: Within | None


class Stages:
    """Runs the stages of one cell.

    Attributes:
      optimizer_steps, forward_passes: by stage; what an earlier, interrupted run did is counted, too.
    """

    def __init__(
        self,
        config: Config,
        folder: Workdir,
        method: str,
        cell: str,
        recorder: Recorder,
        train: Split,
        val: Split,
        keys: dict[str, jax.Array],
    ) -> None:
        """Takes a key for each stage, and the names of the cell's method and of the cell."""
        self._config, self._folder, self._method, self._cell, self._recorder = config, folder, method, cell, recorder
        self._train, self._val, self._keys = train, val, keys
        self._iterations = train.size // config.data.batch_size
        self.optimizer_steps: Counter[str] = Counter()
        self.forward_passes: Counter[str] = Counter()

    def task(self, stage: str, network: Network, rules: dict[str, Any], epochs: int) -> steps.Task:
        """The static half of a stage; `rules` are a config's, by group, and `epochs` the length of their schedules."""
        passes = len(steps.passes(self._config.protocol, prompted=network.prompted))
        updates = {
            # The prompt moves in prompted passes only, everything else in all of them.
            group: self._iterations * (1 if group == "prompt" else passes)
            for group in rules
        }
        made: dict[str, optim.Rule] = {
            group: rule.rule(epochs=epochs, updates_per_epoch=updates[group]) for group, rule in rules.items()
        }
        return steps.Task(
            stage=stage,
            network=network,
            protocol=self._config.protocol,
            batch_norm=self._config.prune.batch_norm if stage in ("prune", "bilevel") else "update",
            batch_size=self._config.data.batch_size,
            rules=tuple(made.items()),
            gamma=self._config.bip.gamma,
        )

    @contextlib.contextmanager
    def open(self, folder: str, *, keep_best: bool = False) -> Iterator[Files]:
        """The checkpoints under that name, and those within epochs where data stream in."""
        every = self._config.checkpoint_every_steps
        with contextlib.ExitStack() as stack:
            checkpoints = stack.enter_context(self._checkpoints(folder, keep_best=keep_best))
            within = None
            if every and not isinstance(self._train, Resident):
                within = Within(stack.enter_context(self._checkpoints(f"{folder}-within", keep_best=False)), every)
            yield Files(checkpoints, within)

    def run(
        self, name: str, task: steps.Task, state: TrainState, fixed: Fixed, epochs: int, files: Files, start: int = 0
    ) -> tuple[TrainState, Fixed]:
        """Runs, or resumes, epochs `start` to `epochs` of the stage that rows call `name`; see `run_stage`."""
        self._count(name, task, epochs - start)
        return run_stage(
            task,
            state,
            fixed,
            self._train,
            self._val,
            epochs=epochs,
            key=self._keys[name],
            remap=self._config.mapping.kind == "iterative",
            checkpoints=files.checkpoints,
            save_every=self._config.checkpoint_every_epochs,
            within=files.within,
            recorder=self._recorder,
            name=name,
            start=start,
        )

    def run_to_best(
        self, name: str, task: steps.Task, state: TrainState, fixed: Fixed, epochs: int
    ) -> tuple[TrainState, Fixed, int, Subnetwork]:
        """Runs a stage; returns what `run` does, and the epoch and the network that are best on validation."""
        with self.open(name, keep_best=True) as files:
            state, fixed = self.run(name, task, state, fixed, epochs, files)
            epoch, (best, _) = files.checkpoints.best((state, fixed.bits))
        return state, fixed, epoch, steps.subnetwork(best, fixed)

    def skip(self, name: str, task: steps.Task, epochs: int) -> None:
        """Counts epochs that an earlier run did, and of which nothing is needed any more."""
        self._count(name, task, epochs)
        self._recorder.skip(name, epochs)

    def _count(self, name: str, task: steps.Task, epochs: int) -> None:
        """Every pass of training is a forward, a backward and an optimizer step."""
        count = epochs * self._iterations * len(task.passes)
        self.optimizer_steps[name] += count
        self.forward_passes[name] += count

    def _checkpoints(self, folder: str, *, keep_best: bool) -> Checkpoints:
        fingerprint = self._folder.fingerprint(self._method, self._cell)
        return Checkpoints(self._folder.checkpoints(self._cell, folder), fingerprint, keep_best=keep_best)
