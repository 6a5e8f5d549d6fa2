"""Figures of a sweep: one for every sparsity, with each method at its numbers."""

import json

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from experiments import figures
from tests.experiments.test_tables import summary
from vpns_jax.analysis.style import looks

# Mean test accuracies at 90% and at 95% sparsity, worked by hand.
MEANS = {0.1: {"hydra": 91.0, "vpns": 93.0, "magnitude": 81.0}, 0.05: {"hydra": 90.0, "vpns": 93.0}}


@pytest.mark.slow
def test_every_sparsity_has_its_figure(tmp_path, drawn):
    (tmp_path / "summary.json").write_text(json.dumps(summary()))
    paths = figures.draw(tmp_path)
    assert [path.name for path in paths] == ["sparsity.png", "cost-s90.png", "cost-s95.png"]
    for figure, path, expected in zip(drawn[1:], paths[1:], MEANS.values(), strict=True):
        passes, seconds = figure.axes
        # Each sample cell has 2,500 passes and 6.25 seconds.
        for axes, spent in ((passes, 2500), (seconds, 6.25)):
            shown = {
                bars.get_label(): (*bars.lines[0].get_xdata(), *bars.lines[0].get_ydata()) for bars in axes.containers
            }
            assert shown == {method: pytest.approx((spent, mean)) for method, mean in expected.items()}
        # Each color is one number, because rows take a second to sort.
        colors = set(np.unique(np.asarray(Image.open(path).convert("RGB"), np.int32) @ [256**2, 256, 1]).tolist())
        for method in expected:
            color, _ = looks(["hydra", "vpns", "magnitude"])[method]
            assert np.dot([round(255 * part) for part in to_rgb(color)], [256**2, 256, 1]) in colors
