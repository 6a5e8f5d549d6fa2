"""Every figure is a PNG of a size one can read, for usual and for poor data."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.analysis import samples
from vpns_jax.analysis import figures
from vpns_jax.analysis.curves import _stages
from vpns_jax.analysis.density import DensityReport, Layer
from vpns_jax.analysis.style import looks
from vpns_jax.analysis.tradeoff import _apart

SIZE = 12
SUPPORT = np.pad(np.zeros((SIZE - 4, SIZE - 4), bool), 2, constant_values=True)
DELTA = np.where(SUPPORT[..., None], np.linspace(-0.2, 0.1, SIZE * SIZE * 3).reshape(SIZE, SIZE, 3), 0.0)
IMAGES = np.linspace(0, 1, 3 * SIZE * SIZE * 3).reshape(3, SIZE, SIZE, 3)


def pixels(path: Path, width: int, height: int) -> np.ndarray:
    """The PNG's pixels, checked to be at least `width` by `height` and not of one color."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width >= width
        assert image.height >= height
        array = np.asarray(image.convert("RGB"))
    assert array.min() < array.max()
    return array


def report(layers: int, *, collapsed: int | None = None) -> DensityReport:
    body = [Layer(f"block{i}/conv/kernel", 100, 0 if i == collapsed else 10 + i) for i in range(layers - 1)]
    return DensityReport((*body, Layer("head/kernel", 50, 25)))


@pytest.mark.parametrize("delta", [DELTA, 0 * DELTA])
def test_prompt_figure(tmp_path, delta):
    path = figures.prompt_figure(delta, SUPPORT, tmp_path / "new" / "prompt.png")
    assert path == tmp_path / "new" / "prompt.png"
    pixels(path, 1000, 500)


def test_a_zero_prompt_is_middle_grey(tmp_path):
    drawn = pixels(figures.prompt_figure(0 * DELTA, np.ones_like(SUPPORT), tmp_path / "p.png"), 1000, 500)
    assert np.abs(drawn[300, 250].astype(int) - 128).max() <= 1


def test_the_prompt_refuses_shapes_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match=r"got \(12, 12, 3\) and \(11, 12\)"):
        figures.prompt_figure(DELTA, SUPPORT[1:], tmp_path / "p.png")


def test_examples_figure(tmp_path):
    titles = ["zero", "costs $5 to $7", "a name so long that it has to be broken in two"]
    pixels(figures.examples_figure(IMAGES, IMAGES - 0.5, titles, tmp_path / "e.png"), 600, 450)


@pytest.mark.parametrize(("n", "titles"), [(3, ["one"]), (0, [])])
def test_examples_refuse_what_does_not_fit(tmp_path, n, titles):
    with pytest.raises(ValueError, match="with n titles"):
        figures.examples_figure(IMAGES[:n], IMAGES[:n], titles, tmp_path / "e.png")


def test_curves_figure(tmp_path):
    pixels(figures.curves_figure(samples.log(), tmp_path / "c.png"), 1000, 700)


def test_curves_of_one_stage_without_a_prompt_or_a_loss(tmp_path):
    log = [{**row, "val_prompted": None, "loss": None} for row in samples.log() if row["stage"] == "retrain"]
    pixels(figures.curves_figure(log[:1], tmp_path / "c.png"), 1000, 700)


@pytest.mark.parametrize(("starts", "expected"), [((1, 1), [[1, 2], [3, 4]]), ((0, 0), [[0, 1], [2, 3]])])
def test_epochs_count_on_through_the_stages(starts, expected):
    log = [
        {"stage": stage, "epoch": start + i}
        for stage, start in zip(("prune", "retrain"), starts, strict=True)
        for i in range(2)
    ]
    assert [epochs for epochs, _ in _stages(log)] == expected
    # A log whose epochs never start anew is left as it is.
    log = [{**row, "epoch": i} for i, row in enumerate(log)]
    assert [epochs for epochs, _ in _stages(log)] == [[0, 1], [2, 3]]


def test_curves_are_of_one_cell(tmp_path):
    with pytest.raises(ValueError, match="got no rows"):
        figures.curves_figure([], tmp_path / "c.png")
    with pytest.raises(ValueError, match="got other, vpns-s80-seed7"):
        figures.curves_figure([*samples.log(), {"cell": "other"}], tmp_path / "c.png")


@pytest.mark.parametrize("layers", [2, 50])
def test_layers_figure(tmp_path, layers):
    reports = {"vpns": report(layers), "hydra": report(layers, collapsed=0)}
    # At least 25 pixels a layer, so that its name can be read.
    pixels(figures.layers_figure(reports, tmp_path / "l.png"), 700, 25 * layers)


def test_layers_wrap_and_may_all_be_empty(tmp_path):
    empty = DensityReport((Layer("conv", 10, 0),))
    pixels(figures.layers_figure({f"method{i}": empty for i in range(6)}, tmp_path / "l.png"), 1200, 400)


@pytest.mark.parametrize("reports", [{}, {"a": report(2), "b": report(3)}, {"a": DensityReport(())}])
def test_layers_refuse_networks_that_differ(tmp_path, reports):
    with pytest.raises(ValueError, match="the same network"):
        figures.layers_figure(reports, tmp_path / "l.png")


@pytest.mark.parametrize("cells", [slice(None), slice(1), slice(5, None), slice(0)])
def test_sparsity_figure_of_all_one_dense_and_no_cells(tmp_path, cells):
    summary = samples.summary()
    summary["cells"] = summary["cells"][cells]
    pixels(figures.sparsity_figure(summary, tmp_path / "s.png"), 1000, 600)


def test_a_seed_that_diverged_is_drawn_around(tmp_path):
    summary = samples.summary()
    summary["cells"][0]["test"]["best"]["plain"] = float("nan")
    pixels(figures.sparsity_figure(summary, tmp_path / "s.png"), 1000, 600)
    log = [{**row, "loss": float("nan"), "val_plain": None, "val_prompted": None} for row in samples.log()]
    pixels(figures.curves_figure(log, tmp_path / "c.png"), 1000, 700)


def test_ticks_that_would_touch_are_left_out():
    assert _apart([50.0, 60.0, 95.0, 96.0, 99.0]) == [50.0, 60.0, 95.0, 99.0]
    assert _apart([]) == []


def test_a_method_looks_the_same_whichever_others_are_there():
    assert looks(["hydra"])["hydra"] == looks(["vpns", "snip", "hydra"])["hydra"]
    many = ["vpns", "hydra", "magnitude", *(f"method{i}" for i in range(20))]
    assert len(set(looks(many).values())) == 23
