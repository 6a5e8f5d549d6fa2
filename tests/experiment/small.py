"""A whole run of the tiny network on a folder of images, in this process: half a second once it is compiled."""

import contextlib

import jax
import numpy as np
from PIL import Image

from tests.pruners import cells
from tests.training import tiny
from vpns_jax.experiment import config, pretraining, run
from vpns_jax.models import layouts, registry
from vpns_jax.training.recorder import Recorder


def images(folder):
    """Writes three splits of images to a folder; returns its name as a data set."""
    for split, seed in (("train", 0), ("val", 1), ("test", 2)):
        data = tiny.split(seed=seed)
        for number, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
            path = folder / split / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(image)).save(path)
    return f"folder:{folder}"


@contextlib.contextmanager
def world(tmp_path, monkeypatch):
    """Where the tiny network can be run and exported; its cache is under `tmp_path`."""
    monkeypatch.setenv("VPNS_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(registry.ENTRIES, "tiny", cells.ENTRY)
    monkeypatch.setitem(layouts.LAYOUTS, tiny.Tiny, (layouts.resnet_torchvision,))
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def parsed(data, **changes):
    """A config of that data set, with the source network in the cache: to train it takes more programs."""
    changes = {"methods": ("hydra",), "densities": (0.5,), "retrain__epochs": 2, "mapping__kind": "random"} | changes
    found = config.parse(cells.tree(data__name=data, **changes))
    if found.model.weights == "pretrain" and not pretraining.cache_path(found).exists():
        pretraining.save(pretraining.cache_path(found), jax.device_get(tiny.variables()), 0.5)
    return found


def go(workdir, data, **changes):
    """Runs or resumes; returns the summary."""
    return run.run(parsed(data, **changes), workdir, "the command")


class Stop(BaseException):
    """A kill, as far as files tell."""


def stop_after(monkeypatch, stage, epoch):
    """Lets every run end right after it has logged that epoch, of which there is no checkpoint yet."""
    log = Recorder.epoch

    def epoch_then_stop(self, row):
        log(self, row)
        if (row["stage"], row["epoch"]) == (stage, epoch):
            raise Stop

    monkeypatch.setattr(Recorder, "epoch", epoch_then_stop)
