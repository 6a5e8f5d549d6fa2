"""Cells of the tiny network, from the config to the result."""

import contextlib
import dataclasses
import itertools

import jax
import numpy as np

from configs import quickstart
from tests import sorting
from tests.training import tiny
from vpns_jax import models, sparsity
from vpns_jax.experiment import config
from vpns_jax.experiment.cell import CellRun, Setup
from vpns_jax.experiment.plan import Cell
from vpns_jax.experiment.workdir import Workdir
from vpns_jax.models import coupling, registry
from vpns_jax.parallel import sharding
from vpns_jax.training.recorder import Progress

ITERATIONS = tiny.IMAGES // tiny.BATCH
ENTRY = registry.Entry(tiny.Tiny, {}, (), None, registry.HALVES)
# The optimizers in a config's tree: (stage, group).
OPTIMIZERS = (
    *itertools.product(("prune",), ("scores", "prompt", "head")),
    *itertools.product(("bip",), ("weights", "scores")),
    *itertools.product(("retrain",), ("weights", "prompt")),
)

# The four output channels of its convolution.
CHANNELS = models.Channels((models.Writer("conv1/kernel", norm="bn1"),), (models.Reader("head/kernel"),))


@contextlib.contextmanager
def world(monkeypatch):
    """Registers the tiny network, on a mesh of one device."""
    monkeypatch.setitem(registry.ENTRIES, "tiny", ENTRY)
    monkeypatch.setitem(coupling.FAMILIES, tiny.Tiny, lambda model: [CHANNELS])
    sorting.replace_searches(monkeypatch)
    with jax.set_mesh(sharding.make_mesh(tiny.BATCH, jax.devices()[:1])):
        yield


def tree(**changes):
    """Makes a config's tree with some keys changed, such as `prune__epochs=2`."""
    made = quickstart.get_config().to_dict()
    made |= {"methods": ("vpns",), "checkpoint_every_epochs": 1}
    made["model"] |= {"name": "tiny", "options": {}}
    made["data"] |= {"image_size": tiny.SIZE, "batch_size": tiny.BATCH}
    made["prompt"] |= {"canvas_size": tiny.SIZE, "pad_size": 2}
    made["prune"] |= {"epochs": 1}
    made["imp"] |= {"epochs": 1}
    made["retrain"] |= {"epochs": 1}
    made["scoring"] |= {"batches": 4}
    made["synflow"] |= {"rounds": 5}
    # The same programs for stages of any length: a cosine has the length in it.
    for stage, group in OPTIMIZERS:
        made[stage][group]["schedule"] = "constant"
    for path, value in changes.items():
        *groups, key = path.split("__")
        branch = made
        for group in groups:
            branch = branch[group]
        branch[key] = value
    return made


def setup(folder, name, *, density=0.5, train=None, **changes):
    """Makes what a cell of method `name` needs, with its files under `folder`."""
    parsed = config.parse(tree(**changes))
    classes, val, test = tuple("abc"), tiny.split(seed=1), tiny.split(seed=2)
    workdir = Workdir(folder / name, parsed)
    train = tiny.split() if train is None else train
    source = dict(tiny.variables())
    inputs, mask = models.find_normalization(parsed.model.name), given(source, density)
    return Setup(parsed, workdir, Progress(1), classes, train, val, test, source, None, inputs, mask)


def cell(folder, name, *, density=0.5, **changes):
    """Makes a running cell of method `name`."""
    return CellRun(setup(folder, name, density=density, **changes), Cell(name, density, 7))


def given(source, density):
    """Makes the mask of method "transfer": a random one, which no other method would find."""
    rng = np.random.default_rng(5)
    scores = jax.tree.map(lambda w: rng.random(w.shape, np.float32), models.prunable(source["params"]))
    return sparsity.topk_mask(scores, density)


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished cell: the pruned network, the networks after retraining (or fitting a prompt), and the result."""

    run: CellRun
    pruned: object
    retrained: object
    best: object
    result: dict


def finish(run):
    """Prunes, retrains and evaluates."""
    pruned = run.prune()
    retrained = last = run.retrain(pruned)
    if run.plan.method.posthoc:
        last = run.fit_prompt(retrained.best)
    return Done(run, pruned, retrained.best, last.best, run.result(last))
