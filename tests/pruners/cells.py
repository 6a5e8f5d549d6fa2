"""Cells of the tiny network: from the config to a result, through everything a pruner is given."""

import contextlib
import dataclasses

import jax

from configs import quickstart
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

# The four channels of its convolution.
CHANNELS = models.Channels((models.Writer("conv1/kernel", norm="bn1"),), (models.Reader("head/kernel"),))


@contextlib.contextmanager
def world(monkeypatch):
    """Where the tiny network has a name, on one device."""
    monkeypatch.setitem(registry.ENTRIES, "tiny", ENTRY)
    monkeypatch.setitem(coupling.FAMILIES, tiny.Tiny, lambda model: [CHANNELS])
    with jax.set_mesh(sharding.make_mesh(tiny.BATCH, jax.devices()[:1])):
        yield


def tree(**changes):
    """A config's tree, with dotted keys changed: `prune__epochs=2`."""
    found = quickstart.get_config().to_dict()
    found |= {"methods": ("vpns",), "checkpoint_every_epochs": 1}
    found["model"] |= {"name": "tiny", "options": {}}
    found["data"] |= {"image_size": tiny.SIZE, "batch_size": tiny.BATCH}
    found["prompt"] |= {"canvas_size": tiny.SIZE, "pad_size": 2}
    found["prune"] |= {"epochs": 1}
    found["imp"] |= {"epochs": 1}
    found["retrain"] |= {"epochs": 1}
    found["scoring"] |= {"batches": 4}
    found["synflow"] |= {"rounds": 5}
    for path, value in changes.items():
        *groups, key = path.split("__")
        branch = found
        for group in groups:
            branch = branch[group]
        branch[key] = value
    return found


def setup(folder, name, *, density=0.5, train=None, **changes):
    """What a cell of the method `name` is made of, with its files under `folder`."""
    parsed = config.parse(tree(**changes))
    classes, val, test = tuple("abc"), tiny.split(seed=1), tiny.split(seed=2)
    workdir = Workdir(folder / name, parsed)
    train = tiny.split() if train is None else train
    source = dict(tiny.variables())
    inputs, mask = models.find_normalization(parsed.model.name), given(source, density)
    return Setup(parsed, workdir, Progress(1), classes, train, val, test, source, None, inputs, mask)


def cell(folder, name, *, density=0.5, **changes):
    """A cell of the method `name` at work."""
    return CellRun(setup(folder, name, density=density, **changes), Cell(name, density, 7))


def given(source, density):
    """The mask of method transfer: by lot, so that no method finds it."""
    scores = jax.tree.map(lambda w: jax.random.uniform(jax.random.key(5), w.shape), models.prunable(source["params"]))
    return sparsity.topk_mask(scores, density)


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished cell: what its pruner gave, what retraining (and a prompt fitted after it) made of it, the result."""

    run: CellRun
    pruned: object
    retrained: object
    best: object
    result: dict


def finish(run):
    """Prune, retrain, evaluate."""
    pruned = run.prune()
    retrained = last = run.retrain(pruned)
    if run.plan.method.posthoc:
        last = run.fit_prompt(retrained.best)
    return Done(run, pruned, retrained.best, last.best, run.result(last))
