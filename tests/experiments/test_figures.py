"""Figures of a sweep: drawn for every sparsity, and not blank."""

import json

import numpy as np
from PIL import Image

from experiments import figures
from tests.experiments.test_tables import summary


def test_every_sparsity_has_its_figure(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(summary()))
    paths = figures.draw(tmp_path)
    assert [path.name for path in paths] == ["sparsity.png", "cost-s90.png", "cost-s95.png"]
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        # More than axes and letters: each method's color is there.
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
