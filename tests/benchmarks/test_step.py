"""The benchmarks run the steps that they name. Tests do not check times."""

import json
import sys

import jax
import numpy as np
import pytest

from benchmarks import conv, input, step, vs_torch
from vpns_jax import models
from vpns_jax.training.metrics import Metrics

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("tiny_network")
def test_every_step_is_measured_and_written_down(capsys, tmp_path, monkeypatch):
    for name in ("dense, Adam", "retrain, masked", "retrain, masked, prompt", "prune (HYDRA)"):
        monkeypatch.delitem(step.CASES, name)
    step.main(["--batch", "8", "--image-size", "16", "--repeats", "1", "--json", str(tmp_path / "found.json")])
    rows = {row.pop("step"): row for row in json.loads((tmp_path / "found.json").read_text())["rows"]}
    assert list(rows) == list(step.CASES)
    assert rows["dense"]["as dense"] == rows["dense"]["memory as dense"] == 1
    assert rows["prune (VPNs)"]["MB"] > rows["dense"]["MB"] > 0
    assert "| prune (VPNs, reference) |" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_network")
def test_optimizers_that_keep_or_move_a_mask_are_measured(capsys, monkeypatch):
    monkeypatch.delitem(step.OWN_LOOP, "gradual magnitude, between moves")
    step.main(["--batch", "8", "--image-size", "16", "--repeats", "1", "--own-loop"])
    printed = capsys.readouterr().out
    assert all(f"| {name} " in printed for name in step.OWN_LOOP)


@pytest.mark.usefixtures("tiny_network")
def test_steps_begin_with_a_tenth_of_the_weights():
    variables = step.make_variables("resnet18", 16)
    for name, (learns, _, prompted, masked, optimizer) in step.CASES.items():
        stage, state = step.start(name, variables, model="resnet18", image_size=16, batch=8, dtype="float32")
        mask = stage.subnetwork(state).mask
        assert set(state.learned) == {learns, "prompt"}
        assert stage.network.prompted == prompted
        # Adam keeps two moments of learned arrays, momentum only one.
        moments = sum(x.size for x in jax.tree.leaves(state.opt_state.inner_states[learns]) if x.ndim)
        assert moments == (2 if optimizer == "adam" else 1) * sum(
            x.size for x in jax.tree.leaves(state.learned[learns])
        )
        assert bool(mask) == masked
        if masked:
            total = sum(leaf.size for leaf in jax.tree.leaves(models.prunable(variables["params"])))
            assert sum(int(leaf.sum()) for leaf in jax.tree.leaves(mask)) == total - int(0.9 * total)


@pytest.mark.usefixtures("tiny_network")
def test_images_come_in_every_way(tmp_path):
    arguments = ["--batch", "8", "--image-size", "16", "--iterations", "2", "--repeats", "1"]
    input.main([*arguments, "--json", str(tmp_path / "found.json")])
    rows = {row["images"]: row for row in json.loads((tmp_path / "found.json").read_text())["rows"]}
    assert list(rows) == ["one batch", "on the device", "streamed, threads"]
    assert rows["one batch"]["waited, %"] == 0


def test_every_convolution_of_a_network_is_found():
    counts = conv.shapes("resnet18", 32)
    assert counts.total() == 20
    assert counts[conv.Shape(size=8, channels=64, features=64, kernel=3, stride=1, padding=1)] == 4
    assert counts[conv.Shape(size=32, channels=3, features=64, kernel=7, stride=2, padding=3)] == 1


def test_convolutions_that_differ_are_not_timed():
    shape = conv.Shape(size=4, channels=2, features=3, kernel=3, stride=1, padding=1)
    results = {name: function() for name, function in conv.contenders(shape, 2, backward=True).items()}
    conv.check(shape, results)
    with pytest.raises(AssertionError, match="4 px, 2 to 3, 3x3 / 1: conv2d and lax differ"):
        conv.check(shape, results | {conv.OURS: (results[conv.OURS][0] + 1, *results[conv.OURS][1:])})


def test_losses_of_passes_are_numbers():
    logits, labels = np.zeros((2, 4), np.float32), np.zeros(2, np.int32)
    assert step.losses((jax.jit(Metrics.of)(logits=logits, labels=labels),)) == [pytest.approx(np.log(4))]


def test_steps_that_differ_are_not_timed():
    vs_torch.check("dense", [1.0], [1.0005], "float32")
    with pytest.raises(AssertionError, match="dense: ours and PyTorch's differ"):
        vs_torch.check("dense", [1.0], [1.005], "float32")
    vs_torch.check("dense", np.float32(1), 1.005, "bfloat16")


def test_without_pytorch_there_is_nothing_to_compare_with(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(vs_torch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="PyTorch is not installed"):
        vs_torch.main([])
