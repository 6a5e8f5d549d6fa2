"""The example's network in a whole experiment, from the command line to files that others run."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from jax import export
from PIL import Image

import main
from tests.experiment import small
from tests.own import networks
from tests.pruners import cells
from vpns_jax import commands, deploy, models
from vpns_jax.errors import UserError
from vpns_jax.experiment import config as experiment_config
from vpns_jax.experiment import inputs
from vpns_jax.models.initializing import shapes

pytestmark = [
    pytest.mark.slow,
    # ml_collections loads config files in a way that is deprecated in Python.
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]

ROOT = Path(__file__).parents[2]
MODEL = "tests.own.networks:make_net"
CELL = "vpns-s70-seed7"
ARGUMENTS = (
    f"--config={ROOT}/examples/own_network.py",
    f"--config.model.name={MODEL}",
    "--config.model.options.width=4",
    "--config.model.options.depth=1",
    "--config.model.weights=default",
    "--config.data.name=tests.own.networks:make_data",
    f"--config.data.image_size={networks.SIZE}",
    f"--config.prompt.canvas_size={networks.SIZE}",
    "--config.prompt.pad_size=2",
    "--config.data.batch_size=8",
    "--config.prune.epochs=1",
    "--config.retrain.epochs=1",
    "--config.densities=(0.3,)",
    "--config.mapping.kind=random",
    "--config.synflow.rounds=3",
)


def call(*arguments):
    with pytest.MonkeyPatch.context() as patch, flagsaver.flagsaver():
        # ml_collections always looks for overrides in sys.argv.
        patch.setattr(sys, "argv", ["main.py", *ARGUMENTS, *arguments])
        flags.FLAGS.unparse_flags()
        return main.main(sys.argv)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of three methods."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch, small.world(folder, patch):
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "already chosen")
        # All retrain with a prompt, so that one program serves them.
        assert call(f"--workdir={folder}/run", "--config.methods=('vpns', 'magnitude+prompt', 'synflow+prompt')") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def network(run):
    return deploy.load(run / "subnetworks" / CELL, model=MODEL)


def test_every_method_has_its_result(run):
    cells = {cell["method"]: cell for cell in json.loads((run / "summary.json").read_text())["cells"]}
    assert set(cells) == {"vpns", "magnitude+prompt", "synflow+prompt"}
    # The kernels: stem 192, depthwise 36, expand and reduce 64 each, head 20.
    for cell in cells.values():
        assert cell["achieved_density"] == pytest.approx((376 - int(0.7 * 376)) / 376)
        assert cell["multiply_adds"]["dense"] == 4 * (192 + 36 + 128) + 20
        assert cell["multiply_adds"]["dense_without_head"] == 4 * (192 + 36 + 128)
    page = (run / "report.html").read_text()
    assert f"IMAGES_OR_FOLDER --model={MODEL}" in page
    assert re.search(f"vpns_jax shrink .*-small --model={MODEL}", page)
    assert re.search(f"--format=stablehlo .* --model={MODEL}", page)


def test_its_file_gives_the_accuracy_of_the_run(run, network, tmp_path, capsys):
    (cell,) = (cell for cell in json.loads((run / "summary.json").read_text())["cells"] if cell["method"] == "vpns")
    pairs = networks.make_data()["test"]
    answer = network.predict(np.stack([image for image, _ in pairs]))
    labels = np.asarray([label for _, label in pairs])
    assert np.mean(answer.labels == labels) == pytest.approx(cell["test"]["best"]["prompted"])
    Image.fromarray(pairs[0][0]).save(tmp_path / "image.png")
    words = ["predict", str(run / "subnetworks" / CELL), str(tmp_path / "image.png"), "--json"]
    assert commands.main([*words, f"--model={MODEL}"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert answer.names[0] in json.dumps(out)


def test_other_programs_run_it(network, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, networks.SIZE, networks.SIZE, 3), np.uint8)
    expected = network.predict(images).probabilities
    deploy.export(network, tmp_path / "net.stablehlo", format="stablehlo")
    program = export.deserialize(bytearray((tmp_path / "net.stablehlo").read_bytes()))
    np.testing.assert_allclose(jax.jit(program.call)(images)["probabilities"], expected, atol=1e-6)
    deploy.export(network, tmp_path / "net.packed.safetensors", format="packed")
    packed = deploy.load(tmp_path / "net.packed.safetensors", model=MODEL)
    np.testing.assert_array_equal(packed.predict(images).probabilities, expected)
    deploy.export(network.without_prompt(), tmp_path / "net.safetensors", format="safetensors")
    for format, path in (("onnx", "net.onnx"), ("timm", "net")):
        with pytest.raises(UserError, match="stablehlo"):
            deploy.export(network.without_prompt(), tmp_path / path, format=format)
        assert not (tmp_path / path).exists()


def test_it_is_cut_smaller(network, tmp_path, capsys):
    """Its channels are found by tracing, and its field `widths` takes those that are left."""
    mask = jax.tree.map(np.array, network.subnetwork.mask)
    mask["expand_0"]["kernel"][:, ::2] = False
    weights = jax.tree.map(np.array, network.subnetwork.weights)
    weights["expand_0"]["bias"][::2] = 0
    half = dataclasses.replace(network, subnetwork=dataclasses.replace(network.subnetwork, mask=mask, weights=weights))
    deploy.save(tmp_path / "half", half)
    words = ["shrink", str(tmp_path / "half"), f"--out={tmp_path}/small"]
    assert commands.main(words) == 2
    assert "no file may choose code to run" in capsys.readouterr().err
    assert commands.main([*words, f"--model={MODEL}"]) == 0
    small = deploy.load(tmp_path / "small", model=MODEL)
    assert small.subnetwork.weights["expand_0"]["kernel"].shape[1] <= 8
    assert small.description.options["widths"]["expand_0"] == small.subnetwork.weights["expand_0"]["kernel"].shape[1]
    images = np.random.default_rng(0).integers(0, 256, (3, networks.SIZE, networks.SIZE, 3), np.uint8)
    np.testing.assert_allclose(small.predict(images).probabilities, half.predict(images).probabilities, atol=1e-6)
    hostile = json.loads(json.dumps(small.description.to_json())) | {"options": {"widths": {"expand_0": 10**9}}}
    with pytest.raises(UserError, match="1000000000 outputs of 'expand_0'"):
        deploy.Description.from_json(hostile, MODEL).network(3)


def test_concatenated_channels_are_pruned_to_a_target_and_cut_out(tmp_path, monkeypatch, capsys):
    branches = "tests.own.networks:make_branches"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "already chosen")
    with small.world(tmp_path, monkeypatch):
        channels = ("--config.granularity=channel", "--config.target=macs:0.6", "--config.methods=('random',)")
        assert call(f"--workdir={tmp_path}/run", f"--config.model.name={branches}", *channels) == 0
    (cell,) = json.loads((tmp_path / "run" / "summary.json").read_text())["cells"]
    path = next((tmp_path / "run" / "subnetworks").glob("random-*.task.safetensors"))
    path = path.with_name(path.name.removesuffix(".task.safetensors"))
    assert commands.main(["shrink", str(path), f"--out={tmp_path}/small", f"--model={branches}"]) == 0
    assert "the same class for 100%" in capsys.readouterr().out
    whole, cut = (deploy.load(each, model=branches) for each in (path, tmp_path / "small"))
    # With so few channels, one more is a large step.
    shares = deploy.size_of(cut).multiply_adds / deploy.size_of(whole).multiply_adds
    assert 0.4 < shares <= 0.6
    # The third branch reads both others at their offsets.
    read, before = (each.subnetwork.weights["c"]["kernel"].shape[2] for each in (cut, whole))
    assert read < before == 7
    pairs = networks.make_data()["test"]
    answer = cut.predict(np.stack([image for image, _ in pairs]))
    assert np.mean(answer.labels == [label for _, label in pairs]) == pytest.approx(cell["test"]["best"]["plain"])


def test_a_program_for_any_batch_needs_a_network_for_any_batch(network, tmp_path):
    description = dataclasses.replace(network.description, model="tests.own.networks:make_chunked", options={})
    model = description.network(5).model
    weights = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes(model, image_size=networks.SIZE))
    weights = weights["params"]
    classifier = deploy.Classifier(description, dataclasses.replace(network.subnetwork, weights=weights, mask={}))
    with pytest.raises(UserError, match=r"make_chunked.: apply fails for images .b, 8, 8, 3") as caught:
        deploy.export(classifier, tmp_path / "net.stablehlo", format="stablehlo")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["pair", "packed"])
def test_a_file_does_not_choose_the_code_that_runs(kind, run, network, tmp_path, monkeypatch):
    path = run / "subnetworks" / CELL
    if kind == "packed":
        path = tmp_path / "net.packed.safetensors"
        deploy.export(network, path, format="packed")
    monkeypatch.delitem(sys.modules, "tests.own.networks")
    with pytest.raises(UserError, match=f"{MODEL}.*no file may choose code to run.*--model") as caught:
        deploy.load(path)
    assert "tests.own.networks" not in sys.modules
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400
    with pytest.raises(UserError, match="module:function or file"):
        deploy.load(path, model="resnet18")
    with pytest.raises(UserError, match=r"make_plain' does not take .num_classes, depth, width"):
        deploy.load(path, model="tests.own.networks:make_plain")


def test_other_code_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "own_and_edited.py"
    file.write_text("from tests.own.networks import make_plain as make")
    data = "tests.own.networks:make_data"
    config = cells.tree(model__name=f"{file}:make", pretrain__data=data, data__name=data)
    parsed = experiment_config.parse(config)
    before = inputs.of(parsed)
    assert before == inputs.of(parsed)
    # The file of the function is that where it is defined.
    edited = tmp_path / "edited.py"
    edited.write_text("...")
    monkeypatch.setattr(models, "own_code", lambda name, **options: (edited,))
    with pytest.raises(UserError, match=r"network's code '.*own_and_edited.py:make' changed since it began"):
        inputs.compare({key: dataclasses.asdict(value) for key, value in before.items()}, inputs.of(parsed), tmp_path)
