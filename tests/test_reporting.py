"""The summary and figures of a cell, also if plain passes use smaller images than prompted ones."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from configs import quickstart
from tests.experiment.small import save_blank
from tests.training import tiny
from vpns_jax import models
from vpns_jax.experiment import cell, config, report
from vpns_jax.experiment.workdir import Workdir

ROWS = [
    {
        "cell": "cell",
        "stage": stage,
        "epoch": epoch,
        "step": epoch,
        "train_accuracy": 0.5,
        "loss": 1 / epoch,
        "val_plain": 0.5,
        "val_prompted": 0.6,
        "density": 0.1,
    }
    for stage in ("prune", "retrain")
    for epoch in (1, 2)
]


@pytest.fixture
def saved_blank(monkeypatch):
    monkeypatch.setattr(FigureCanvasAgg, "print_png", save_blank)


# Axes are looked at, and no pixels.
@pytest.mark.slow
@pytest.mark.usefixtures("saved_blank")
@pytest.mark.parametrize("image_size", [tiny.SIZE, tiny.SIZE - 2])
def test_plain_and_prompted_examples_stand_on_one_canvas(tmp_path, drawn, image_size):
    stage, state = tiny.begin("weights")
    # As in the released code, plain images keep their own size.
    network = dataclasses.replace(stage.network, plain=None)
    data = tiny.split()
    small = dataclasses.replace(data, images=data.images[:, :image_size, :image_size])
    examples = small.examples(report.EXAMPLES)
    folder = Workdir(tmp_path / "run", config.parse(quickstart.get_config().to_dict()))
    result = {"cell": "cell", "confusion": {"plain": ["0:2", "", "0:1 2:1"], "prompted": None}}
    report.draw_cell(folder, result, network, stage.subnetwork(state), examples, ("a", "b", "c"), ROWS)
    names = {path.name for path in folder.figures.iterdir()}
    assert names == {"cell-curves.png", "cell-confusion.png", "cell-prompt.png", "cell-examples.png"}
    plain, prompted = drawn[-1].axes[: report.EXAMPLES], drawn[-1].axes[report.EXAMPLES :]
    edge = (tiny.SIZE - image_size) // 2
    inside = slice(edge, tiny.SIZE - edge)
    for number, image in enumerate(np.asarray(examples[0]) / 255):
        shown = plain[number].images[0].get_array()
        assert shown.shape == (tiny.SIZE, tiny.SIZE, 3)
        np.testing.assert_allclose(shown[inside, inside], image, atol=1e-6)
        # The prompt, zero at its start, is a frame of two pixels on the canvas.
        np.testing.assert_allclose(prompted[number].images[0].get_array()[2:-2, 2:-2], shown[2:-2, 2:-2], atol=1e-6)
        assert plain[number].get_title() == "abc"[int(examples[1][number])]


def test_the_summary_has_the_classes_and_is_text_whatever_the_names(tmp_path):
    """Bytes that are not UTF-8, in a folder's name and in the command, once stopped a run when it wrote its report."""
    images = tmp_path / os.fsdecode(b"caf\xe9")
    images.mkdir()
    tree = quickstart.get_config().to_dict()
    tree["data"]["name"] = f"folder:{images}"
    parsed = config.parse(tree)
    folder = Workdir(tmp_path / "run", parsed)
    model = models.create(parsed.model.name, num_classes=62, **parsed.model.options)
    source = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    classes = ("caf\\xe9", "犬", "🐶")
    setup = cell.Setup(
        parsed,
        folder,
        None,
        classes,
        None,
        None,
        None,
        source,
        0.9,
        models.Normalization((0.5,) * 3, (0.5,) * 3, "a test"),
    )
    report.report(parsed, folder, [], setup.about(f"python main.py --config.data.name=folder:{images}"))
    summary = json.loads((folder.path / "summary.json").read_text(encoding="utf-8"))
    assert summary["classes"] == list(classes)
    assert summary["dataset"] == f"folder:{tmp_path}/caf\\xe9"
    # Half of a surrogate pair cannot be written to a file.
    json.dumps(summary, ensure_ascii=False).encode()
    assert "caf\\xe9" in (folder.path / "report.html").read_text(encoding="utf-8")
