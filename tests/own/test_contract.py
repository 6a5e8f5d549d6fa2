"""What a network of one's own must be: what fits is taken, and what does not is one line, before any work."""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import own_network
from tests.own import misfits, networks
from tests.pruners import cells
from tests.training import tiny
from vpns_jax import models, references, trees
from vpns_jax.analysis import flops
from vpns_jax.errors import UserError
from vpns_jax.experiment import config, run

NETWORKS = "tests.own.networks:"
IMAGES = jax.ShapeDtypeStruct((2, networks.SIZE, networks.SIZE, 3), jnp.float32)


def refused(function, *words):
    with pytest.raises(UserError) as caught:
        function()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) <= 400
    for word in words:
        assert word in text


def check(name):
    models.check_call(models.create(f"tests.own.misfits:{name}", num_classes=5), image_size=networks.SIZE)


@pytest.mark.parametrize("name", ["make_net", "make_mixer", "make_plain"])
def test_networks_that_fit(name):
    model = models.create(f"{NETWORKS}{name}", num_classes=5)
    models.check_call(model, image_size=networks.SIZE)
    assert model == models.create(f"{NETWORKS}{name}", num_classes=5)
    assert hash(model) == hash(models.create(f"{NETWORKS}{name}", num_classes=5))
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    assert shapes["params"]["head"]["bias"].shape == (5,)
    kernels = models.prunable(shapes["params"])
    # The head is known as such: costs are counted with and without it.
    listed = flops.kernels(model, image_size=networks.SIZE)
    assert {kernel.path for kernel in listed} == set(trees.flatten(kernels))
    costs = flops.multiply_adds(listed, [], head=models.HEAD)
    assert costs["dense"] - costs["dense_without_head"] == shapes["params"]["head"]["kernel"].size


@pytest.mark.slow
def test_it_computes_what_the_module_computes():
    model, module = models.create(f"{NETWORKS}make_mixer", num_classes=5), networks.Mixer(5)
    images = jax.random.normal(jax.random.key(1), IMAGES.shape)
    training = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": jax.random.key(2)}}

    def outcome(network):
        variables = network.init(jax.random.key(0), images)
        return variables, network.apply(variables, images), network.apply(variables, images, **training)

    (variables, *computed), (inner, *expected) = jax.jit(lambda: (outcome(model), outcome(module)))()
    assert tiny.same(variables["params"]["head"], inner["params"]["top"]["Dense_0"])
    assert tiny.same(computed, expected)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", ("misfits:raises", "RuntimeError: no disk no dinner")),
        ("no_module", ("returned a dict", "Linen module or models.OwnModel")),
        ("bound", ("returned a method", "Linen module or models.OwnModel")),
        ("not_called_so", ("does not take (num_classes)", "'classes'")),
        ("seeded", ("misfits:seeded", "no option may be called seed", "another name")),
        ("needs_depth", ("'depth'", "options need defaults")),
        ("without_train", ("WithoutTrain is called with (images, deterministic)", "(images, train)")),
        ("without_kernels", ("no kernel", "params has w, b", "head=")),
        ("unhashable", ("Net has a field field of type bytearray", "without a hash")),
        ("other_head", ("head 'head' has no kernel and no bias", "params has conv, Dense_7", "head=...")),
        ("two_heads", ("head 'conv' has kernel [2, 2, 3, 3] and bias [3]", "kernel [c, 5] and bias [5]")),
        ("no_bias", ("kernel [3, 5] and no bias",)),
        ("other_classes", ("kernel [3, 6] and bias [6]; it must have kernel [c, 5]",)),
        ("half", ("params/conv/", "bfloat16", "must be float32")),
        ("cache", ("collection 'cache'", "params and batch_stats")),
        ("of_maps", ("float32 [2, 4, 4, 5]", "images [2, 8, 8, 3]", "logits [2, 5]")),
        ("of_pairs", ("returns a tuple", "logits [2, 5]")),
        ("noisy", ("apply fails for images [2, 8, 8, 3]", "noise")),
        ("late", ("apply fails", "late")),
        ("constant", ("has no function constant",)),
        ("missing", ("module tests.own.misfits has no function missing",)),
    ],
)
def test_what_does_not_fit_is_one_line(name, words):
    refused(lambda: check(name), *words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("of_maps", ("float32 [2, 4, 4, 1000]", "not logits [2, 1000]")),
        ("load_fails", ("ZeroDivisionError",)),
        ("load_nothing", ("OwnModel(module, load=...)",)),
    ],
)
def test_a_run_is_refused_before_it_makes_a_folder(name, words, tmp_path):
    data = f"{NETWORKS}make_data"
    parsed = config.parse(
        cells.tree(model__name=f"tests.own.misfits:{name}", model__weights="default", data__name=data)
    )
    refused(lambda: run.run(parsed, tmp_path / "run", "the command"), *words)
    assert list(tmp_path.iterdir()) == []


def test_the_example_fits():
    parsed = config.parse(own_network.get_config().to_dict())
    model = models.create(parsed.model.name, num_classes=62, **parsed.model.options)
    models.check_call(model, image_size=parsed.prompt.canvas_size)
    assert model.widths == ()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("load_fails", ("load() failed: ZeroDivisionError",)),
        ("load_other", ("load() returned list", "mapping with params")),
        ("load_misfit", ("load() of tests.own.misfits:load_misfit does not fit", "--verbose lists all")),
        ("load_two_heads", ("misfits:load_two_heads", "classifier", "another part is called head; rename that")),
        ("load_nothing", ("has no pretrained weights", "OwnModel(module, load=...)", "model.weights=pretrain")),
    ],
)
def test_a_loader_that_does_not_fit_is_one_line(name, words):
    refused(lambda: models.read_pretrained(f"tests.own.misfits:{name}", num_classes=5, image_size=8), *words)


def test_other_mistakes_are_one_line(tmp_path):
    refused(lambda: models.create("nowhere.at_all:make"), "nowhere.at_all:make", "cannot be imported")
    refused(lambda: models.create("no/such/file.py:make"), "no/such/file.py:make", "no such file")
    refused(lambda: models.create("resnet19"), "'resnet19'", "resnet18", "my_module:make_model")
    refused(lambda: models.create("folder:/images"), "'folder:/images'", "my_module:make_model")
    refused(lambda: models.create(f"{NETWORKS}make_plain", depth=3), "(num_classes, depth)", "'depth'")
    refused(lambda: models.create(f"{NETWORKS}make_plain", widths={"conv1": 2.5}), "widths", "numbers of outputs")
    refused(lambda: models.find_normalization("tests.own.misfits:dark"), "misfits:dark", "std is (0.0, 0.5, 0.5)")
    model = models.create(f"{NETWORKS}make_plain", num_classes=5)
    refused(lambda: models.shrink(model, {"params": {}}), "cannot be made smaller", "no field `widths`")
    # A module of Python's library, and one that is built in and so has no file.
    for taken in ("random", "time"):
        (tmp_path / f"{taken}.py").write_text("def make(num_classes): pass")
        name = f"{tmp_path}/{taken}.py:make"
        refused(functools.partial(models.create, name), f"another module called {taken}", "another name")
    (tmp_path / "my.model.py").write_text("def make(num_classes): pass")
    refused(lambda: models.create(f"{tmp_path}/my.model.py:make"), "my.model.py", "no dot before .py", "another name")


def test_channels_of_a_module_without_a_hash_are_refused():
    refused(lambda: models.channels(misfits.Net(5, field=bytearray(b"a"))), "Net has a field without a hash")


@pytest.mark.parametrize("option", ["name", "num_classes"])
def test_options_of_a_config_are_not_called_as_other_arguments(option):
    refused(
        lambda: config.parse(cells.tree(model__name="resnet18", model__options={option: 1})),
        "config.model.options",
        f"called {option}",
    )


def test_a_module_that_ends_the_program_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "script_that_exits.py").write_text("raise SystemExit(2)")
    name = f"{tmp_path}/script_that_exits.py:make"
    refused(lambda: models.create(name), "cannot be imported", "SystemExit: 2")


def test_a_function_without_a_signature_has_no_options():
    assert models.options("builtins:type") == ()


def test_a_file_is_imported_with_its_neighbors(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "neighbor_of_own.py").write_text("from tests.own.networks import make_plain")
    (tmp_path / "own_in_a_file.py").write_text("from neighbor_of_own import make_plain as make_model")
    monkeypatch.chdir(tmp_path)
    model = models.create("own_in_a_file.py:make_model", num_classes=4)
    assert model.module == networks.Concatenated(4)
    assert model.clone(num_classes=2).num_classes == 2
    for name, known in (
        ("a.b:c", True),
        ("a/b-c.py:d", True),
        ("a.b", False),
        ("mnist:3.0.1", False),
        ("a:b:c", False),
    ):
        assert references.is_reference(name) is known


def test_the_files_with_its_code_are_those_of_function_and_class():
    here, example = Path(networks.__file__), Path(own_network.__file__)
    assert models.own_code(f"{NETWORKS}make_mixer") == (here,)
    assert set(models.own_code(f"{NETWORKS}make_net")) == {here, example}
    assert models.own_code("resnet18") == ()
    assert references.source(print) is None


def test_widths_are_no_argument_of_the_function():
    """A shrunk network can be trained on: the function makes the network, and `create` gives it its widths."""
    name, options = f"{NETWORKS}make_branches", {"widths": {"a": 2}}
    assert models.own_code(name, **options) == models.own_code(name)
    assert models.normalization(name, **options) == models.normalization(name)
    assert tiny.same(models.own_weights(name, **options), models.own_weights(name))


@pytest.mark.parametrize("mutable", [[], ["batch_stats"], True])
def test_changed_collections_are_returned_as_flax_does(mutable):
    model, module = models.create(f"{NETWORKS}make_plain", num_classes=5), networks.Concatenated(5)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)

    def form(network):
        return jax.eval_shape(lambda v, x: network.apply(v, x, train=False, mutable=mutable), variables, IMAGES)

    assert form(model) == form(module)


def test_pretrained_variables_and_normalization_are_its_own():
    name = f"{NETWORKS}make_net"
    read = models.read_pretrained(name, num_classes=None, image_size=networks.SIZE)
    loaded = models.own_weights(name)
    assert tiny.same(jax.tree.map(np.asarray, read.variables), loaded)
    assert read.variables["params"]["head"]["bias"].shape == (tiny.SOURCE_CLASSES,)
    assert models.find_normalization(name).mean == (0.5, 0.25, 0.125)
    assert models.find_normalization(f"{NETWORKS}make_mixer").std == (1.0, 1.0, 1.0)
    # Another head may be learned; all else is the loader's.
    other = models.read_pretrained(name, num_classes=3, image_size=networks.SIZE, dont_load=("head",)).variables
    assert other["params"]["head"]["bias"].shape == (3,)
    assert tiny.same(np.asarray(other["params"]["stem"]["kernel"]), loaded["params"]["stem"]["kernel"])
