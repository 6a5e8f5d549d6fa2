"""What to do with a run's best network."""

import shlex
from pathlib import Path

from tests.analysis import samples
from vpns_jax import commands as program
from vpns_jax.commands import predict
from vpns_jax.deploy.loading import file_of
from vpns_jax.experiment import usage


class Folder:
    """Where a run keeps its networks."""

    def __init__(self, path):
        self.path = path

    def subnetwork(self, cell):
        return self.path / "subnetworks" / f"{cell}.safetensors"


def test_the_best_on_validation_is_chosen_and_of_equals_the_sparsest():
    cells = samples.summary()["cells"]
    # The dense network is better, and not what was asked for.
    assert usage.best(cells)["cell"] == "vpns-s80-seed7"
    equal = [samples.cell("vpns", density, 7, 0.5, 0.9) for density in (0.2, 0.05, 0.1)]
    assert usage.best(equal)["density"] == 0.05
    # Prompted accuracy counts where there is a prompt, and that on test does not.
    better = samples.cell("hydra", 0.3, 7, 0.9, None)
    better["test"]["best"]["plain"] = 0.1
    assert usage.best([*equal, better])["cell"] == "vpns-s95-seed7"
    better["val"]["best"]["plain"] = 0.92
    assert usage.best([*equal, better]) is better
    assert usage.best(cells[-1:])["method"] == "dense"


def test_the_commands_are_ones_that_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [samples.cell("vpns", 0.005, 7, 0.5, 0.9)]
    for place in (tmp_path / "a run", tmp_path.parent):
        folder = Folder(place)
        lines = [shlex.split(line) for _, line in usage.commands(cells, folder)]
        assert [words[:3] for words in lines] == [["python", "-m", "vpns_jax"]] * 3
        assert [words[3] for words in lines] == ["predict", "shrink", "export"]
        assert all(words[3] in program.COMMANDS for words in lines)
        network = lines[0][4]
        assert file_of(network).absolute() == folder.subnetwork(cells[0]["cell"])
        assert Path(network).is_absolute() == (place != tmp_path / "a run")
    lines = [shlex.split(line) for _, line in usage.commands(cells, folder, own="my:make", shrinks=False)]
    assert [words[3] for words in lines] == ["predict", "export"]
    assert all(words[-1] == "--model=my:make" for words in lines)
    assert lines[1][4] == lines[0][4]
    assert usage.commands([], Folder(tmp_path)) == []
    assert predict.USAGE.startswith("python -m vpns_jax predict NETWORK IMAGES_OR_FOLDER")
