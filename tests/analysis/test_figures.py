"""Every figure is a PNG of a readable size and shows its numbers, also for incomplete data."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.analysis import samples
from vpns_jax.analysis import figures
from vpns_jax.analysis.density import DensityReport, Layer
from vpns_jax.analysis.style import looks
from vpns_jax.errors import UserError
from vpns_jax.files import unfinished

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


def test_a_full_disk_is_one_line_that_names_the_figure_and_leaves_the_old_one(tmp_path):
    path = figures.prompt_figure(DELTA, SUPPORT, tmp_path / "prompt.png")
    before = path.read_bytes()
    unfinished(path).symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"prompt\.png cannot be written: No space left on device, .* MiB free there"):
        figures.prompt_figure(0 * DELTA, SUPPORT, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/new cannot be written or read: Not a directory"):
        figures.prompt_figure(DELTA, SUPPORT, tmp_path / "file" / "new" / "prompt.png")


@pytest.mark.parametrize(("delta", "note"), [(DELTA, "±0.2"), (0 * DELTA, "nothing is learned yet")])
def test_prompt_figure(tmp_path, drawn, delta, note):
    path = figures.prompt_figure(delta, SUPPORT, tmp_path / "new" / "prompt.png")
    assert path == tmp_path / "new" / "prompt.png"
    pixels(path, 1000, 500)
    signed, strength, _ = drawn[0].axes
    assert note in signed.get_title()
    # The strongest channel, -0.2 in the first pixel, is black; where there is no prompt the picture is transparent.
    picture = signed.images[0].get_array()
    np.testing.assert_allclose(picture[..., :3], 0.5 + delta / 0.4, atol=1e-6)
    np.testing.assert_array_equal(picture[..., 3], SUPPORT)
    shown = strength.images[0].get_array()
    np.testing.assert_array_equal(shown.mask, ~SUPPORT)
    np.testing.assert_allclose(shown.filled(0), np.abs(delta).mean(-1), atol=1e-6)


def test_a_zero_prompt_is_middle_grey(tmp_path):
    drawn = pixels(figures.prompt_figure(0 * DELTA, np.ones_like(SUPPORT), tmp_path / "p.png"), 1000, 500)
    assert np.abs(drawn[300, 250].astype(int) - 128).max() <= 1


def test_the_prompt_refuses_shapes_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match=r"got \(12, 12, 3\) and \(11, 12\)"):
        figures.prompt_figure(DELTA, SUPPORT[1:], tmp_path / "p.png")


def test_examples_figure(tmp_path, drawn):
    titles = ["zero", "costs $5 to $7", "a name so long that it has to be broken in two"]
    pixels(figures.examples_figure(IMAGES, IMAGES - 0.5, titles, tmp_path / "e.png"), 600, 450)
    plain, prompted = drawn[0].axes[:3], drawn[0].axes[3:]
    for number, title in enumerate(titles):
        np.testing.assert_allclose(plain[number].images[0].get_array(), IMAGES[number], atol=1e-6)
        # Values outside [0, 1] are clipped.
        np.testing.assert_allclose(
            prompted[number].images[0].get_array(), np.maximum(IMAGES[number] - 0.5, 0), atol=1e-6
        )
        assert plain[number].get_title().replace("\n", " ") == title
    assert (plain[0].get_ylabel(), prompted[0].get_ylabel()) == ("plain", "prompted")


@pytest.mark.parametrize(("n", "titles"), [(3, ["one"]), (0, [])])
def test_examples_refuse_what_does_not_fit(tmp_path, n, titles):
    with pytest.raises(ValueError, match="with n titles"):
        figures.examples_figure(IMAGES[:n], IMAGES[:n], titles, tmp_path / "e.png")


def curves(axes):
    """What a panel's curves show: style, epochs and values, stage by stage; where a stage begins is no curve."""
    lines = [line for line in axes.lines if len(set(line.get_xdata())) > 1 or len(line.get_xdata()) == 1]
    return [(line.get_linestyle(), [*line.get_xdata()], pytest.approx([*line.get_ydata()])) for line in lines]


def test_curves_figure(tmp_path, drawn):
    pixels(figures.curves_figure(samples.log(), tmp_path / "c.png"), 1000, 700)
    loss, accuracy = drawn[0].axes
    assert curves(loss) == [("-", epochs, [1 / 2, 1 / 3]) for epochs in ([1, 2], [3, 4])]
    assert curves(accuracy) == [
        (style, epochs, values)
        for epochs in ([1, 2], [3, 4])
        for style, values in (("-", [60.0, 70.0]), ("--", [50.0, 60.0]))
    ]
    assert [text.get_text().strip() for text in loss.texts] == ["prune", "retrain"]
    (boundary,) = (line for line in loss.lines if len(set(line.get_xdata())) == 1)
    assert boundary.get_xdata()[0] == 2.5
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["prompted", "plain"]


def test_curves_of_one_stage_without_a_prompt_or_a_loss(tmp_path, drawn):
    log = [{**row, "val_prompted": None, "loss": None} for row in samples.log() if row["stage"] == "retrain"]
    pixels(figures.curves_figure(log[:1], tmp_path / "c.png"), 1000, 700)
    loss, accuracy = drawn[0].axes
    assert curves(loss) == []
    assert curves(accuracy) == [("--", [1], [50.0])]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["plain"]


@pytest.mark.parametrize(("starts", "expected"), [((1, 1), [[1, 2], [3, 4]]), ((0, 0), [[0, 1], [2, 3]])])
def test_epochs_count_on_through_the_stages(tmp_path, drawn, starts, expected):
    log = [
        {"cell": "cell", "loss": 0.5, "val_plain": 0.5, "stage": stage, "epoch": start + i}
        for stage, start in zip(("prune", "retrain"), starts, strict=True)
        for i in range(2)
    ]
    # Epochs that are already numbered through stay as they are.
    for rows in (log, [{**row, "epoch": i} for i, row in enumerate(log)]):
        figures.curves_figure(rows, tmp_path / "c.png")
    assert [[epochs for _, epochs, _ in curves(figure.axes[0])] for figure in drawn] == [expected, [[0, 1], [2, 3]]]


def test_curves_are_of_one_cell(tmp_path):
    with pytest.raises(ValueError, match="got no rows"):
        figures.curves_figure([], tmp_path / "c.png")
    with pytest.raises(ValueError, match="got other, vpns-s80-seed7"):
        figures.curves_figure([*samples.log(), {"cell": "other"}], tmp_path / "c.png")


@pytest.mark.slow
@pytest.mark.parametrize("layers", [2, 50])
def test_layers_figure(tmp_path, drawn, layers):
    reports = {"vpns": report(layers), "hydra": report(layers, collapsed=0)}
    # At least 25 pixels a layer, so that its name can be read.
    pixels(figures.layers_figure(reports, tmp_path / "l.png"), 700, 25 * layers)
    kept = [float(10 + i) for i in range(layers - 1)]
    for panel, shown in zip(drawn[0].axes, ([*kept, 50.0], [0.0, *kept[1:], 50.0]), strict=True):
        assert [bar.get_width() for bar in panel.patches] == pytest.approx(shown)
        # Of 100 weights in each layer and 50 in the head.
        whole = (sum(shown) - 25) / (100 * (layers - 1) + 50)
        assert panel.lines[0].get_xdata()[0] == pytest.approx(100 * whole)
    vpns, hydra = drawn[0].axes
    assert [text.get_text() for text in vpns.texts] == []
    assert [text.get_text() for text in hydra.texts] == ["none kept"]
    names = [*(f"block{i}/conv" for i in range(layers - 1)), "head"]
    assert [label.get_text() for label in vpns.get_yticklabels()] == names


@pytest.mark.slow
def test_layers_wrap_and_may_all_be_empty(tmp_path, drawn):
    empty = DensityReport((Layer("conv", 10, 0),))
    pixels(figures.layers_figure({f"method{i}": empty for i in range(6)}, tmp_path / "l.png"), 1200, 400)
    panels = [panel for panel in drawn[0].axes if panel.get_visible()]
    assert [panel.get_title().splitlines()[0] for panel in panels] == [f"method{i}" for i in range(6)]
    assert len({panel.get_position().y0 for panel in panels}) == 2


@pytest.mark.parametrize("reports", [{}, {"a": report(2), "b": report(3)}, {"a": DensityReport(())}])
def test_layers_refuse_networks_that_differ(tmp_path, reports):
    with pytest.raises(ValueError, match="the same network"):
        figures.layers_figure(reports, tmp_path / "l.png")


def means(axes):
    """What a panel shows with error bars: color and style, places, means and how far bars reach, line by line."""
    shown = []
    for line, _, (bars,) in axes.containers:
        reach = [segment[1][1] - segment[0][1] for segment in bars.get_segments() if len(segment)]
        look, x, y = (line.get_color(), line.get_linestyle()), line.get_xdata(), line.get_ydata()
        shown.append((look, np.float64(x), np.float64(y), np.float64(reach)))
    return shown


# Of VPNs prompted, VPNs plain and HYDRA: sparsities, means, and twice the deviation of two seeds 10 points apart.
SHOWN = [
    ("-", [80, 95], [95, 75], [2 * 50**0.5]),
    ("--", [80, 95], [90, 55], [2 * 50**0.5]),
    ("--", [80, 95], [92.5, 65], []),
]


def test_sparsity_figure(tmp_path, drawn):
    pixels(figures.sparsity_figure(samples.summary(), tmp_path / "s.png"), 1000, 600)
    (axes,) = drawn[0].axes
    colors = [looks(["vpns", "hydra"])[name][0] for name in ("vpns", "vpns", "hydra")]
    for found, color, (style, places, values, reach) in zip(means(axes), colors, SHOWN, strict=True):
        assert found[0] == (color, style)
        # Methods are shifted sideways a little.
        np.testing.assert_allclose(found[1], places, atol=0.1)
        np.testing.assert_allclose(found[2], values)
        np.testing.assert_allclose(found[3], reach)
    assert axes.lines[-1].get_ydata()[0] == 97.5
    assert [*axes.get_xticks()] == [80, 95]
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert legend == ["vpns", "hydra", "dense", "prompted", "plain"]


@pytest.mark.parametrize(
    ("cells", "lines", "legend"),
    [
        # Of one cell, of a dense network alone, of none at all.
        (slice(1), 2, ["vpns", "prompted", "plain"]),
        (slice(5, None), 0, ["dense"]),
        (slice(0), 0, []),
    ],
)
def test_sparsity_figure_of_few_cells(tmp_path, drawn, cells, lines, legend):
    summary = samples.summary()
    summary["cells"] = summary["cells"][cells]
    pixels(figures.sparsity_figure(summary, tmp_path / "s.png"), 1000, 600)
    assert len(means(drawn[0].axes[0])) == lines
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == legend


@pytest.mark.slow
def test_a_seed_that_diverged_is_drawn_around(tmp_path, drawn):
    summary = samples.summary()
    summary["cells"][0]["test"]["best"]["plain"] = float("nan")
    pixels(figures.sparsity_figure(summary, tmp_path / "s.png"), 1000, 600)
    (_, (_, _, plain, _), _) = means(drawn[0].axes[0])
    np.testing.assert_array_equal(plain, [90, np.nan])
    log = [{**row, "loss": float("nan"), "val_plain": None, "val_prompted": None} for row in samples.log()]
    pixels(figures.curves_figure(log, tmp_path / "c.png"), 1000, 700)
    loss, accuracy = drawn[1].axes
    assert all(np.isnan(line.get_ydata()).all() for line in loss.lines[:2])
    assert curves(accuracy) == []


def test_ticks_that_would_touch_are_left_out(tmp_path, drawn):
    summary = samples.summary()
    summary["cells"] = [samples.cell("vpns", density, 7, 0.5, 0.6) for density in (0.5, 0.4, 0.05, 0.04, 0.01)]
    figures.sparsity_figure(summary, tmp_path / "s.png")
    assert [*drawn[0].axes[0].get_xticks()] == [50.0, 60.0, 95.0, 99.0]


def test_a_method_looks_the_same_whichever_others_are_there():
    assert looks(["hydra"])["hydra"] == looks(["vpns", "snip", "hydra"])["hydra"]
    many = ["vpns", "hydra", "magnitude", *(f"method{i}" for i in range(20))]
    assert len(set(looks(many).values())) == 23
