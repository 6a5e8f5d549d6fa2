"""Training of a source network: what a kill loses."""

import pytest

from tests.experiment import small
from tests.pruners import cells
from tests.training import tiny
from vpns_jax.experiment import config, pretraining
from vpns_jax.experiment.workdir import Workdir
from vpns_jax.training.recorder import Progress, Recorder


def test_a_kill_loses_no_more_epochs_than_between_checkpoints(tmp_path, monkeypatch):
    small.stop_after(monkeypatch, pretraining.STAGE, 5)
    with cells.world(monkeypatch):
        # At this rate accuracy stays as it is after the first epoch.
        parsed = config.parse(
            cells.tree(
                pretrain__epochs=8,
                pretrain__batch_size=tiny.BATCH,
                pretrain__weights__learning_rate=1e-9,
                checkpoint_every_epochs=2,
            )
        )
        folder = Workdir(tmp_path / "run", parsed)
        recorder = Recorder("source", folder.log, folder.tensorboard("source"), Progress(8))
        with pytest.raises(small.Stop):
            pretraining.pretrain(
                parsed,
                tiny.CLASSES,
                train=tiny.split(seed=0),
                val=tiny.split(seed=1),
                test=tiny.split(seed=2),
                directory=folder.checkpoints("source"),
                fingerprint="any",
                recorder=recorder,
            )
    assert [path.name for path in (folder.checkpoints("source") / pretraining.STAGE).iterdir()] == ["4"]
