"""The notebooks: each is executed as it stands, in a kernel of its own, with a tiny network and a few images."""

import base64
import dataclasses
import importlib.metadata
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from vpns_jax import data, deploy
from vpns_jax.deploy.exports import FORMATS
from vpns_jax.models.registry import ENTRIES
from vpns_jax.parallel import startup

ROOT = Path(__file__).parent.parent
NAMES = ("own_images", "own_model", "vpns")
# A ResNet-18 of one block, because most of the time is tracing and compiling.
SHALLOW = """
import pytest
from tests import sorting
from tests.test_notebook import ENTRIES, shallow

sorting.replace_searches(pytest.MonkeyPatch())

ENTRIES["resnet18"] = shallow()
"""
SMALL = {"SIZE": 16, "EPOCHS": 1, "METHODS": ("vpns",)}
CHANGES = {"model.options.width": 1 / 8, "pretrain.data": "digits", "prompt.pad_size": 2}


def shallow():
    entry = ENTRIES["resnet18"]
    return dataclasses.replace(entry, architecture=entry.architecture | {"depths": (1,)})


def read(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def codes(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def execute(tmp_path, tmp_path_factory, monkeypatch, request):
    """Executes a notebook with other settings; returns what it printed, and how many pictures it shows."""
    # Two start from the same source network, so the second finds it.
    monkeypatch.setenv("VPNS_JAX_CACHE", str(tmp_path_factory.getbasetemp() / "notebooks"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(request.config.cache.mkdir("compiled")))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    # As in a notebook of a user's, where pictures stand in the page.
    monkeypatch.delenv("MPLBACKEND", raising=False)

    def run(name, **settings):
        notebook = read(name)
        (place,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
        lines = [f"{key} = {value!r}" for key, value in {**SMALL, "WORKDIR": str(tmp_path / "run"), **settings}.items()]
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("\n".join(lines) + SHALLOW))
        NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
        outputs = [output for cell in codes(notebook) for output in cell.outputs]
        pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
        assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
        return "".join(output.text for output in outputs if output.output_type == "stream"), len(pictures)

    return run


@pytest.mark.slow
def test_own_images_from_a_folder_to_a_file(execute, tmp_path, monkeypatch):
    printed, pictures = execute("own_images", PROMPT=2, SAMPLES=400, CHANGES=CHANGES | {"target": "macs:0.6"})
    # Three rows of images, four figures of the report, and the widths.
    assert pictures == 8
    assert "360 images for training and validation, 90 for the test\n10 classes: 0, 1, 2, 3" in printed
    assert "Without their dead channels, dense over their time" in printed
    assert "the same answer for 100.00% of 90 test images" in printed
    monkeypatch.setitem(ENTRIES, "resnet18", shallow())
    (small,) = (tmp_path / "run").glob("*-small.safetensors")
    before = deploy.load(tmp_path / "run" / "subnetworks" / small.name.replace("-small", ""))
    assert deploy.size_of(deploy.load(small)).multiply_adds <= 0.6 * deploy.size_of(before).multiply_adds
    assert small.with_suffix(".onnx").exists()
    # What the run learned, and what is left of it, answers in every format as it does here, prompted and mapped.
    for classifier in (before, deploy.load(small)):
        for name in ("onnx", "stablehlo", "packed"):
            path = tmp_path / f"{deploy.size_of(classifier).multiply_adds}{FORMATS[name].suffix}"
            assert deploy.export(classifier, path, format=name).difference.largest <= 1e-5, name


@pytest.mark.slow
def test_the_experiment_of_the_other_notebook(execute):
    printed, pictures = execute("vpns", DATA="digits", CHANGES=CHANGES | {"seeds": (9,), "densities": (0.3,)})
    assert pictures == 5
    assert "accuracy on 500 test images: " in printed


@pytest.mark.slow
def test_a_model_and_a_loop_of_ones_own(execute):
    printed, pictures = execute("own_model", STEPS=4, RULES=("RigL",))
    # A mask, the density while masks move, prompted digits, and the accuracies.
    assert pictures == 4
    assert printed.count("5.00% of the weights are not zero") == 2
    assert printed.count("of 297 test images") == 4


@pytest.mark.parametrize("name", NAMES)
def test_it_was_saved_without_outputs(name):
    assert all(cell.outputs == [] and cell.execution_count is None for cell in codes(read(name)))


def test_all_install_in_the_same_way():
    first, *others = (codes(read(name))[0].source for name in NAMES)
    assert all(other == first for other in others)


# What pip has not installed yet, and whether it must run.
MISSING = {"": False, "vpns_jax": True, "onnxruntime": True}


@pytest.mark.parametrize("given", ["inside", "path", "address"])
@pytest.mark.parametrize("missing", MISSING)
def test_what_is_installed_is_the_clone(tmp_path, monkeypatch, given, missing):
    """From within a clone, from its path, and from a Git address; a second time changes nothing."""
    clone = tmp_path / "clone"
    (clone / "vpns_jax").mkdir(parents=True)
    (clone / "vpns_jax" / "__init__.py").touch()
    (clone / "notebooks").mkdir()
    # What pip left on another machine, as in a clone on Drive.
    (clone / "vpns_jax.egg-info").mkdir()
    (clone / "vpns_jax.egg-info" / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: vpns_jax\nVersion: 0.1\n")
    git = ["git", "-C", str(clone), "-c", "user.name=a", "-c", "user.email=b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "c"]):
        subprocess.run([*git, *words], check=True)
    started, run, find = [], subprocess.run, importlib.metadata.distributions
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(clone / "notebooks" if given == "inside" else tmp_path)

    def distributions(**options):
        for package in find(**options):
            if package.name != missing or Path(package.locate_file("")).is_relative_to(tmp_path):
                yield package

    def keep(words, **options):
        started.append(words)
        return run(words, **options) if words[0] == "git" else None

    monkeypatch.setattr(importlib.metadata, "distributions", distributions)
    monkeypatch.setattr(subprocess, "run", keep)
    value = {"inside": "", "path": str(clone), "address": f"file://{clone}"}[given]
    source = codes(read("own_images"))[0].source
    assert 'REPOSITORY = ""' in source
    for _ in range(2):
        exec(source.replace('REPOSITORY = ""', f"REPOSITORY = {value!r}"), {})
    place = tmp_path / "home" / "vpns_jax" if given == "address" else clone
    assert Path.cwd() == place
    assert sys.path[0] == str(place)
    assert (place / "vpns_jax" / "__init__.py").exists()
    assert [words[1] for words in started if words[0] == "git"] == ["clone"] * (given == "address")
    pip = [sys.executable, "-m", "pip", "install", "-q", "-e", ".[bundled,deploy]"]
    assert [words for words in started if words[0] != "git"] == [pip] * 2 * MISSING[missing]


def test_beside_a_clone_it_asks_for_the_place_of_one(tmp_path, monkeypatch):
    """A clone's folder has the name of the package that lies in it."""
    (tmp_path / "vpns_jax" / "vpns_jax").mkdir(parents=True)
    (tmp_path / "vpns_jax" / "vpns_jax" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"lies in no clone of vpns_jax: set REPOSITORY$"):
        exec(codes(read("own_images"))[0].source, {})


@pytest.mark.parametrize(
    ("name", "checkpoint", "fast"), [("vpns", "", True), ("own_images", "", True), ("own_images", "a.pth", False)]
)
def test_programs_are_compiled_as_fast_as_the_config_says(monkeypatch, name, checkpoint, fast):
    prepared = []
    monkeypatch.setattr(startup, "prepare", lambda **options: prepared.append(options))
    (source,) = [cell.source for cell in codes(read(name)) if "startup.prepare" in cell.source]
    exec(source, {"CHECKPOINT": checkpoint})
    assert prepared == [{"fast_compile": fast}]


def test_no_part_of_the_digits_passes_for_all(tmp_path, monkeypatch):
    """Nor are there more than all."""
    pixels = np.zeros((12, 8, 8, 1), np.uint8)
    split = SimpleNamespace(images=pixels, labels=np.repeat([0, 1], 6))
    digits, load = SimpleNamespace(train=split, classes=("zero", "one")), data.load
    monkeypatch.setattr(data, "load", lambda name, **options: digits if name == "mnist5k" else load(name, **options))
    (source,) = [cell.source for cell in codes(read("own_images")) if "def write_digits" in cell.source]
    settings = {"IMAGES": "", "WORKDIR": str(tmp_path / "run"), "SAMPLES": 100, "SIZE": 8, "Path": Path}
    save, left = Image.Image.save, [7]

    def interrupted(image, path):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        save(image, path)

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exec(source, settings)
    assert not (tmp_path / "run-images").exists()
    exec(source, settings)
    assert {path.name: len(list(path.iterdir())) for path in (tmp_path / "run-images").iterdir()} == {
        "zero": 6,
        "one": 6,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["run-images"]
