"""Every config can be built and its stages lowered; every key is listed, explained, bounded and read."""

import ast
import copy
import dataclasses
import functools
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import channels, default, digits, digits_sweep, paper, quickstart, resnet50_imagenet, vit_imagenet
from vpns_jax import data, models, options, sparsity
from vpns_jax.errors import UserError
from vpns_jax.experiment import cell, config, plan, pruning
from vpns_jax.experiment.workdir import Workdir
from vpns_jax.models import option_checks, registry
from vpns_jax.training import passes
from vpns_jax.training.batches import Resident
from vpns_jax.training.optimizers import Optimizer
from vpns_jax.training.recorder import Progress
from vpns_jax.training.runner import Runner

CONFIGS = {
    "channels": channels.get_config,
    "default": default.get_config,
    "digits": digits.get_config,
    "digits_sweep": digits_sweep.get_config,
    "quickstart": quickstart.get_config,
    "resnet50_imagenet": resnet50_imagenet.get_config,
    **{f"vit_imagenet:{size}": lambda size=size: vit_imagenet.get_config(size) for size in vit_imagenet.NETWORKS},
    **{
        f"paper:{network},{name}": lambda network=network, name=name: paper.get_config(f"{network},{name}")
        for network in paper.NETWORKS
        for name in paper.DATASETS
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_parses(name):
    parsed = config.parse(CONFIGS[name]().to_dict())
    assert parsed.model.name in models.names()
    assert parsed.data.name in data.names()
    assert config.parse(parsed.to_json()) == parsed


@functools.cache
def shapes(name, options, size):
    """Computes the shapes of a network's parameters at its full size, without making them."""
    model = models.create(name, **dict(options))
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_has_its_network_and_something_to_prune(name):
    parsed = config.parse(CONFIGS[name]().to_dict())
    params = shapes(parsed.model.name, tuple(parsed.model.options.items()), parsed.prompt.canvas_size)
    kernels = pruning.prunable(parsed, params)
    # A head's channels are the classes, which are not pruned.
    open_ones = {name: each for name, each in params.items() if name != models.HEAD or parsed.granularity != "channel"}
    share = sparsity.selection.count(kernels) / sparsity.selection.count(open_ones)
    assert 0.98 < share < 1
    assert all(sparsity.pruned_count(kernels, density) > 0 for density in parsed.densities)


def test_the_papers_cells_have_its_schedule():
    """The numbers are those of the paper's released code."""
    for network in ("resnet18", "resnet50", "vgg16"):
        for name, batch in (("cifar100", 256), ("stanford_cars", 128), ("dtd", 64), ("imagenet", 1024)):
            parsed = config.parse(paper.get_config(f"{network},{name}").to_dict())
            assert (parsed.model.name, parsed.data.name, parsed.data.batch_size) == (network, name, batch)
            assert parsed.seeds == (7, 9, 17)
            assert parsed.densities == (0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
            assert (parsed.prune.epochs, parsed.retrain.epochs) == (30, 30)
            assert (parsed.prune.scores.optimizer, parsed.prune.scores.learning_rate) == ("adam", 1e-4)
            assert (parsed.retrain.weights.optimizer, parsed.retrain.weights.learning_rate) == ("sgd", 0.01)
            assert parsed.make_prompt().parameter_count() == 39_936


# One config for each kind of network and recipe; data sets differ only in the number of classes. Other tests run the
# steps of ResNet-18.
FEW_LAYERS = {
    "resnet50_imagenet": {"depths": (1, 1)},
    "paper:vgg16,dtd": {"stages": ((1, 64), (1, 128))},
    "vit_imagenet:ti": {"depth": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW_LAYERS)
@pytest.mark.usefixtures("searched_by_sorting")
def test_a_prune_and_a_retrain_step_are_lowered(name, monkeypatch, tmp_path):
    tree = CONFIGS[name]().to_dict()
    # Made small: a small canvas, few images, narrow kernels if the network has a width, and few layers of each kind.
    entry = registry.entry(tree["model"]["name"])
    shallow = dataclasses.replace(entry, architecture=entry.architecture | FEW_LAYERS[name])
    monkeypatch.setitem(registry.ENTRIES, tree["model"]["name"], shallow)
    tree["prompt"] |= {"canvas_size": 32, "pad_size": 4}
    tree["data"] |= {"image_size": 32, "batch_size": 2}
    tree["mapping"] |= {"kind": "random"}
    if not name.startswith("vit"):
        tree["model"]["options"] |= {"width": 0.125}
    parsed = config.parse(tree)
    run = cell.CellRun(_setup(parsed, tmp_path), plan.Cell("vpns", 0.1, 7))

    run.runner = LowerOnly(**{field.name: getattr(run.runner, field.name) for field in dataclasses.fields(Runner)})
    run.retrain(run.prune())
    assert run.runner.lowered == {"prune": 1, "retrain": 1}


class LowerOnly(Runner):
    """Lowers an iteration of each stage instead of training it: what is left to XLA would take half of the time."""

    @property
    def lowered(self):
        return self.forward_passes

    def run(self, name, stage, state, end, opened=None, *, start=0):
        batches = tuple((self.train.images[:2], self.train.labels[:2]) for _ in stage.passes)
        jax.jit(passes.iterate, static_argnums=0).lower(stage, state, batches, jax.random.key(0))
        self.forward_passes[name] += 1
        return state

    def run_to_best(self, name, stage, state, epochs):
        return self.run(name, stage, state, epochs), epochs, stage.subnetwork(state)


def _setup(parsed, folder):
    size = parsed.prompt.canvas_size
    model = models.create(parsed.model.name, **parsed.model.options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    rng = np.random.default_rng(0)
    source = jax.device_put(jax.tree.map(lambda x: rng.uniform(-1, 1, x.shape).astype(x.dtype), shapes))
    images = jax.device_put(np.zeros((4, size, size, 3), np.uint8))
    split = Resident(images=images, labels=jax.device_put(np.arange(4, dtype=np.int32)), large=images)
    workdir, classes = Workdir(folder / "run", parsed), tuple("abcd")
    inputs = models.find_normalization(parsed.model.name)
    return cell.Setup(parsed, workdir, Progress(1), classes, split, split, split, source, None, inputs)


def changed(path, value):
    """Makes the quickstart's tree with one key changed."""
    tree = quickstart.get_config().to_dict()
    *groups, key = path.split(".")
    branch = tree
    for group in groups:
        branch = branch[group]
    branch[key] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("prune.epoch", 3, r"config.prune has unknown keys \['epoch'\]; known: epochs"),
        ("prune.epochs", "3", "config.prune.epochs is '3'; it must be of type int"),
        ("prune.epochs", True, "config.prune.epochs is True; it must be of type int"),
        ("densities", 0.1, "config.densities is 0.1; it must be a tuple"),
        ("densities", ("a",), r"config.densities\[0\] is 'a'; it must be of type float"),
        ("prune", 3, "config.prune is 3; it must be a group of keys"),
        ("data.image_size", 33, "image_size is 33; images must fit the canvas, config.prompt.canvas_size = 32"),
        ("data.budget_gib", -1.0, "budget_gib is -1.0"),
        ("mapping.network", "both", "'both'.*sparse, dense"),
        ("mesh.fsdp", 0, "config.mesh.fsdp is 0; it must be at least 1, or -1"),
        ("mesh.fsdp", -1, "config.mesh.data and config.mesh.fsdp are -1; only one"),
        ("model.options", {"depth": 3}, "depth.*width, stem, dtype"),
    ],
)
def test_bad_trees(path, value, message):
    with pytest.raises(UserError, match=message) as caught:
        config.parse(changed(path, value))
    assert "\n" not in str(caught.value)


def test_options_of_the_model_are_those_that_are_set():
    parsed = config.parse(quickstart.get_config().to_dict())
    assert parsed.model.options == {"width": 0.25}
    assert config.parse(vit_imagenet.get_config().to_dict()).model.options == {"dtype": "bfloat16"}


def test_a_missing_key():
    tree = copy.deepcopy(quickstart.get_config().to_dict())
    del tree["prune"]["epochs"]
    with pytest.raises(UserError, match=r"config.prune has missing keys \['epochs'\]"):
        config.parse(tree)


def test_expand_needs_the_image_that_its_border_leaves():
    tree = changed("prompt.kind", "expand")
    with pytest.raises(UserError, match="prompt expand of 4 px on a canvas of 32 px takes 24"):
        config.parse(tree)
    tree["data"]["image_size"] = 24
    assert config.parse(tree).make_prompt().kind == "expand"


def test_a_config_cannot_be_changed():
    parsed = config.parse(quickstart.get_config().to_dict())
    with pytest.raises(dataclasses.FrozenInstanceError):
        parsed.name = "other"
    assert np.isfinite(parsed.densities).all()


def listed():
    """Reads configs/default.py: the comment above each key, by the key's dotted name."""
    comments, comment = {}, []
    for line in inspect.getsource(default).splitlines():
        assigned = re.match(r"    (config|rule)\.([\w.]+) = ", line)
        if line.startswith("    # "):
            comment.append(line.strip("# "))
            continue
        if assigned:
            comments[f"{'rule.' if assigned[1] == 'rule' else ''}{assigned[2]}"] = " ".join(comment)
        comment = []
    return comments


def described():
    """Lists the meanings in the dataclasses, with the keys of an optimizer only once."""
    rules = {f"rule.{key}" for key, _ in options.described(Optimizer)}
    keys = {
        key: option for key, option in options.described(config.Config) if f"rule.{key.split('.')[-1]}" not in rules
    }
    return keys | {f"rule.{key}": option for key, option in options.described(Optimizer)}


def test_the_list_of_keys_is_that_of_the_dataclasses():
    assert config.parse(default.get_config().to_dict()) == config.Config()
    comments = listed()
    # The options of models share one comment.
    assert {key for key in comments if key.startswith("model.options.")} == {
        f"model.options.{name}" for name in option_checks.OPTIONS
    }
    stated = {key: comment for key, comment in comments.items() if not key.startswith("model.options.")}
    assert stated == {key: option.meaning for key, option in described().items()}


def test_every_number_has_an_upper_end_that_says_why():
    for key, value in leaves(config.Config()):
        allowed = dict(options.described(config.Config))[key].allowed
        numbers = [x for x in (value if isinstance(value, tuple) else (value,)) if type(x) in (int, float)]
        if numbers:
            assert isinstance(allowed, options.Range), key
            assert allowed.why or allowed.must, key
            assert np.isfinite(allowed.most), key


def leaves(group, prefix=""):
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


# What code that reads a key calls its group, where it is not called by its own name.
HELD_AS = {
    **dict.fromkeys(("weights", "scores", "head"), ("optimizer",)),
    **dict.fromkeys(("scoring", "synflow", "imp", "bip", "transfer"), ("options",)),
    "data": ("options", "decoding"),
    "prompt": ("optimizer", "self"),
    "": ("config", "self"),
}


def owner(node):
    """The name before the last dot of an expression; that of a function which is called."""
    while isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def test_every_key_is_read_somewhere():
    """Every key is read as an attribute of its group, outside of its declaration and check."""
    root = Path(__file__).parent.parent
    read = set()
    for path in [root / "main.py", *root.glob("vpns_jax/**/*.py"), *root.glob("experiments/*.py")]:
        for scope in ast.walk(ast.parse(path.read_text())):
            if isinstance(scope, ast.FunctionDef) and "check" not in scope.name:
                found = (node for node in ast.walk(scope) if isinstance(node, ast.Attribute))
                read |= {(owner(node.value), node.attr) for node in found}
    unread = []
    for path, _ in leaves(config.Config()):
        group, _, key = path.rpartition(".")
        group = group.rpartition(".")[-1]
        if not any((name, key) in read for name in (group, *HELD_AS.get(group, ()))):
            unread.append(path)
    assert unread == []


def test_a_key_by_its_former_name():
    tree = changed("prompt.parametrisation", "tanh")
    assert config.parse(tree).prompt.parametrization == "tanh"
    del tree["prompt"]["parametrization"]
    assert config.parse(tree).make_prompt().parametrization == "tanh"
