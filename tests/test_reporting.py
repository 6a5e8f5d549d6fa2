"""A cell's figures, also where plain passes take smaller images than prompted ones."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from configs import quickstart
from tests.training import tiny
from vpns_jax.experiment import config, report
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


@pytest.mark.parametrize("image_size", [tiny.SIZE, tiny.SIZE - 2])
def test_plain_and_prompted_examples_stand_on_one_canvas(tmp_path, image_size):
    stage, state = tiny.begin("weights")
    # The released code's: plain images keep their own size.
    network = dataclasses.replace(stage.network, plain=None)
    data = tiny.split()
    small = dataclasses.replace(data, images=data.images[:, :image_size, :image_size])
    examples = small.examples(report.EXAMPLES)
    folder = Workdir(tmp_path / "run", config.parse(quickstart.get_config().to_dict()))
    report.draw_cell(folder, "cell", network, stage.subnetwork(state), examples, ("a", "b", "c"), ROWS)
    names = {path.name for path in folder.figures.iterdir()}
    assert names == {"cell-curves.png", "cell-prompt.png", "cell-examples.png"}
    pixels = np.asarray(Image.open(folder.figures / "cell-examples.png").convert("L"))
    assert pixels.std() > 10
