"""Whole runs of the tiny network on a folder of images, in this process: half a second each once compiled."""

import contextlib
import io

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from tests import sorting
from tests.pruners import cells
from tests.training import tiny
from vpns_jax.analysis import figures as analysis_figures
from vpns_jax.experiment import config, pretraining, run
from vpns_jax.models import layouts, registry
from vpns_jax.training.recorder import Recorder


def images(folder):
    """Writes three splits of images to a folder; returns the name of the data set."""
    for split, seed in (("train", 0), ("val", 1), ("test", 2)):
        data = tiny.split(seed=seed)
        for number, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
            path = folder / split / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(image)).save(path)
    return f"folder:{folder}"


def _blank():
    file = io.BytesIO()
    Image.new("1", (1, 1)).save(file, "png")
    return file.getvalue()


BLANK = _blank()


def save_blank(canvas, file):
    """Stands for `FigureCanvasAgg.print_png`: writes a picture of one pixel."""
    del canvas
    file.write(BLANK)


def blank_figure(*data):
    """Stands for a function of `figures`, whose last argument is the file."""
    data[-1].parent.mkdir(exist_ok=True)
    data[-1].write_bytes(BLANK)
    return data[-1]


@contextlib.contextmanager
def world(tmp_path, monkeypatch, *, figures=True):
    """Registers the tiny network so that it can be run and exported, with its cache under `tmp_path`.

    Figures are made but not drawn, which would take half the time of a run. Making them takes a third of what is left,
    so tests that run often do without.
    """
    monkeypatch.setattr(FigureCanvasAgg, "print_png", save_blank)
    for name in () if figures else analysis_figures.__all__:
        monkeypatch.setattr(analysis_figures, name, blank_figure)
    monkeypatch.setenv("VPNS_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(registry.ENTRIES, "tiny", cells.ENTRY)
    sorting.replace_searches(monkeypatch)
    monkeypatch.setitem(layouts.LAYOUTS, tiny.Tiny, (layouts.resnet_torchvision,))
    yield


def parsed(data, **changes):
    """Makes a config for the data set, and puts the source network into the cache, because training it takes longer.

    The digits are one small file, which every run digests.
    """
    usual = {"methods": ("hydra",), "densities": (0.5,), "retrain__epochs": 2, "mapping__kind": "random"}
    changes = usual | {"pretrain__data": "digits"} | changes
    parsed = config.parse(cells.tree(data__name=data, **changes))
    if parsed.model.weights == "pretrain" and not pretraining.cache_path(parsed).exists():
        pretraining.save(pretraining.cache_path(parsed), jax.device_get(tiny.variables()), 0.5)
    return parsed


def go(workdir, data, **changes):
    """Runs or resumes; returns the summary."""
    return run.run(parsed(data, **changes), workdir, "the command")


class Stop(BaseException):
    """Simulates a kill, with the same files left behind."""


def stop_after(monkeypatch, stage, epoch):
    """Ends every run right after it has logged an epoch, before the epoch's checkpoint."""
    log = Recorder.epoch

    def epoch_then_stop(self, row):
        log(self, row)
        if (row["stage"], row["epoch"]) == (stage, epoch):
            raise Stop

    monkeypatch.setattr(Recorder, "epoch", epoch_then_stop)
