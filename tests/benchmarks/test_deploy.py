"""The benchmark compares networks of equal cost that answer equally in both runtimes. Tests do not check times."""

import json

import numpy as np
import pytest

from benchmarks import deploy, deploy_run
from tests.deploy import families
from vpns_jax.deploy import save, size_of

pytestmark = pytest.mark.usefixtures("small_families")


@pytest.mark.slow
def test_networks_cost_what_was_asked_for():
    compared = deploy.networks("small_basic", 32, 0.5)
    cost = {each: size_of(network).multiply_adds for each, network in compared.items()}
    assert cost[deploy.MASKED] == cost[deploy.DENSE]
    widths = compared[deploy.ROUNDED].description.options["widths"].values()
    assert all(width % deploy.ROUND_TO == 0 for width in widths)
    for each in (deploy.SHRUNK, deploy.ROUNDED, deploy.NARROW):
        assert 0.45 * cost[deploy.DENSE] < cost[each] <= 0.5 * cost[deploy.DENSE]


def test_narrow_networks_have_the_same_widths_in_all_blocks():
    dense = deploy.classifier("small_vit", 32)
    # One of two heads. The embedding of 16 patches and the head of 10 classes stay; 17 tokens go through two blocks.
    least = 16 * 192 * 128 + 128 * 10 + 2 * 17 * 4 * 128 * 64
    hidden = (size_of(dense).multiply_adds / 2 - least) / (2 * 17 * 2 * 128)
    assert hidden == pytest.approx(233.3, abs=0.1)
    assert deploy.narrow_widths(dense, 0.5) == {
        **{f"block_{i}/attention/value": 64 for i in range(2)},
        **{f"block_{i}/mlp/fc1": 233 for i in range(2)},
    }


@pytest.mark.slow
def test_every_network_is_measured_and_written_down(capsys, tmp_path):
    arguments = ["--model", "small_vit", "--image-size", "32", "--batch", "2", "--repeats", "1"]
    deploy.main([*arguments, "--json", str(tmp_path / "found.json")])
    rows = {row.pop("network"): row for row in json.loads((tmp_path / "found.json").read_text())["rows"]}
    assert list(rows) == [deploy.DENSE, deploy.MASKED, deploy.SHRUNK, deploy.ROUNDED, deploy.NARROW]
    for runtime in ("JAX", "ONNX Runtime"):
        assert rows[deploy.DENSE][f"{runtime} 2, times as fast"] == 1
        assert all(row[f"{runtime} 2, ms"] > 0 for row in rows.values())
    # A mask takes room beside the weights, saves much of it if packed, and does nothing for an ONNX file.
    assert rows[deploy.MASKED]["packed, MB"] < 0.2 * rows[deploy.DENSE]["packed, MB"]
    assert rows[deploy.MASKED]["MB"] > rows[deploy.DENSE]["MB"] > rows[deploy.SHRUNK]["MB"]
    assert rows[deploy.MASKED]["ONNX, MB"] == rows[deploy.DENSE]["ONNX, MB"] > rows[deploy.SHRUNK]["ONNX, MB"]
    assert "| shrunk, multiples of 8 |" in capsys.readouterr().out


def test_networks_that_differ_between_runtimes_are_not_timed():
    with pytest.raises(AssertionError, match="dense: JAX and ONNX Runtime differ"):
        deploy.check("dense", np.asarray([[0.5, 0.5]]), np.asarray([[0.51, 0.49]]))


@pytest.mark.slow
def test_the_networks_of_a_run_are_drawn_by_accuracy_and_latency(tmp_path, drawn):
    for density, test in ((0.3, {"plain": 0.5, "prompted": 0.75}), (0.2, {"plain": 0.5, "prompted": None})):
        origin = {"method": "vpns", "accuracy": {"test": test}}
        save(
            tmp_path / "subnetworks" / f"vpns-{density}",
            families.classifier("small_vgg_bn", density=density, origin=origin),
        )
    arguments = [str(tmp_path), "--batch", "2", "--repeats", "1", "--json", str(tmp_path / "found.json")]
    deploy_run.main([*arguments, "--figure", str(tmp_path / "latency.png")])
    rows = {row["network"]: row for row in json.loads((tmp_path / "found.json").read_text())["rows"]}
    assert {name: row["accuracy, %"] for name, row in rows.items()} == {
        deploy_run.WHOLE: None,
        "vpns-0.2": 50,
        "vpns-0.3": 75,
    }
    assert rows["vpns-0.3"]["M multiply-adds"] < rows[deploy_run.WHOLE]["M multiply-adds"]
    (figure,) = drawn
    for axes, runtime in zip(figure.axes, deploy.RUNTIMES, strict=True):
        points = {tuple(line.get_xydata()[0]) for line in axes.lines if line.get_label() == "vpns"}
        assert points == {
            (row[f"{runtime} 2, ms"], row["accuracy, %"]) for name, row in rows.items() if name != deploy_run.WHOLE
        }


def test_a_folder_without_networks_is_named(capsys, tmp_path):
    with pytest.raises(SystemExit):
        deploy_run.main([str(tmp_path)])
    assert f"{tmp_path} has no finished network" in capsys.readouterr().err
