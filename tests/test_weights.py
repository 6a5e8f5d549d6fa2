"""A run on weights from a file: what is refused before it begins, and what it reports about the weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.experiment import small
from tests.pruners import cells
from tests.training import tiny
from vpns_jax import models
from vpns_jax.errors import UserError
from vpns_jax.experiment import config
from vpns_jax.experiment import run as experiment

MEAN, STD = (0.1, 0.2, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Writes images, and the tiny network's weights as `w.safetensors`."""
    with small.world(tmp_path, monkeypatch):
        small.images(tmp_path / "images")
        save(tmp_path, tiny.variables())
        yield tmp_path


def save(folder, variables, rename=""):
    tensors = models.export("tiny", jax.device_get(variables))
    models.save_safetensors(folder / "w.safetensors", {rename + key: tensor for key, tensor in tensors.items()})


def parsed(folder, **changes):
    changes = {"methods": ("dense",), "mapping__kind": "random"} | changes
    files = {"model__weights": str(folder / "w.safetensors"), "data__name": f"folder:{folder / 'images'}"}
    return config.parse(cells.tree(**files | changes))


def run(folder, name, **changes):
    return experiment.run(parsed(folder, **changes), folder / name, "command")


@pytest.mark.parametrize("constant", [0.0, 0.25])
def test_a_constant_head_is_refused_unless_a_new_one_is_made(folder, constant):
    variables = tiny.variables()
    variables["params"][models.HEAD] = {
        "kernel": jnp.full((4, tiny.SOURCE_CLASSES), constant),
        "bias": jnp.zeros(tiny.SOURCE_CLASSES),
    }
    save(folder, variables)
    with pytest.raises(UserError, match=r"head of these weights is constant.*mapping\.kind=head"):
        run(folder, "run")
    assert not (folder / "run").exists()
    experiment.check(parsed(folder, mapping__kind="head"))


@pytest.mark.slow
def test_what_inputs_are_normalized_by_is_said_kept_and_used(folder, capsys):
    keys = run(folder, "keys", model__mean=MEAN, model__std=STD)
    assert "inputs normalized by mean (0.1, 0.2, 0.3), std (0.2, 0.25, 0.3), as configured" in capsys.readouterr().out
    default = run(folder, "default")
    assert "mean (0.5, 0.5, 0.5), std (0.5, 0.5, 0.5), which default weights of tiny" in capsys.readouterr().out
    (folder / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": MEAN, "std": STD}}))
    beside = run(folder, "beside")
    assert "std (0.2, 0.25, 0.3), as config.json beside the weights says" in capsys.readouterr().out
    for summary, mean, origin in (
        (keys, MEAN, "as configured"),
        (beside, MEAN, "as config.json beside the weights says"),
    ):
        used = summary["source"]["normalization"]
        assert (tuple(used["mean"]), tuple(used["std"]), used["origin"]) == (mean, STD, origin)
        assert json.loads(json.dumps(summary["cells"][0]["normalization"])) == json.loads(json.dumps(used))
    losses = [
        [json.loads(line)["loss"] for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("keys", "beside", "default")
    ]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert default["source"]["normalization"]["mean"] != keys["source"]["normalization"]["mean"]


@pytest.mark.slow
def test_what_was_unwrapped_is_said_and_kept(folder, capsys):
    save(folder, tiny.variables(), rename="module.")
    note = "took wrappers such as 'module.' off 7 names"
    assert run(folder, "run")["source"]["notes"] == [note]
    assert f"w.safetensors: {note}" in capsys.readouterr().out


def test_keys_for_what_of_a_file_is_loaded(folder):
    path = folder / "w.safetensors"
    tensors = models.export("tiny", jax.device_get(tiny.variables()))
    two = {f"ema.{key}": tensor for key, tensor in tensors.items()}
    two |= {f"raw.{key}": tensor for key, tensor in tensors.items()} | {"ema.loss.weight": np.ones(3, np.float32)}
    models.save_safetensors(path, two)
    with pytest.raises(UserError, match=r"weights_key"):
        experiment.check(parsed(folder))
    with pytest.raises(UserError, match=r"model\.ignore.*not used: loss\.weight"):
        experiment.check(parsed(folder, model__weights_key="ema"))
    experiment.check(parsed(folder, model__weights_key="ema", model__ignore=("loss.*",)))
    experiment.check(parsed(folder, model__weights_key="raw", model__dont_load=("bn1",)))
    with pytest.raises(UserError, match="dont_load pattern 'bn7' matches nothing"):
        experiment.check(parsed(folder, model__weights_key="raw", model__dont_load=("bn7",)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model__mean": (0.5, 0.5)}, r"config\.model\.mean is \(0\.5, 0\.5\); it must be three numbers"),
        ({"model__mean": MEAN}, r"config\.model\.std is \(\); it must be three numbers"),
        ({"model__mean": MEAN, "model__std": (0.0, 1.0, 1.0)}, r"config\.model\.std holds 0\.0; it must be above 0"),
        ({"model__dont_load": ("head",)}, r"a label mapping needs the weights' own head; mapping\.kind=head"),
        ({"model__dont_load": ("h*",)}, r"a label mapping needs the weights' own head"),
        (
            {"model__weights": "pretrain", "model__ignore": ("x",)},
            r"config\.model\.ignore is \('x',\); no file is read",
        ),
        ({"model__weights": "pretrain", "model__weights_key": "ema"}, r"config\.model\.weights_key is 'ema'"),
    ],
)
def test_keys_that_cannot_be_meant(folder, changes, reason):
    with pytest.raises(UserError, match=reason):
        parsed(folder, **changes)
