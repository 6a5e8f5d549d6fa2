"""Masks of one run that are retrained in another: the cells, what is refused, and the final table."""

import csv
import json

import jax
import numpy as np
import pytest

from configs import digits
from experiments import paired, transfer, workers
from tests.analysis.samples import cell as sample
from tests.experiments import in_process
from vpns_jax import models, prompting, sparsity
from vpns_jax.deploy import subnetworks
from vpns_jax.errors import UserError
from vpns_jax.experiment import config, inputs, lock
from vpns_jax.experiment import run as experiment
from vpns_jax.experiment.workdir import Workdir
from vpns_jax.models import initializing
from vpns_jax.training.network import Subnetwork

pytestmark = pytest.mark.slow


def parsed(**changes):
    tree = digits.get_config().to_dict() | {"methods": ("vpns", "hydra"), "densities": (0.1, 0.05), "seeds": (7, 9)}
    tree["model"]["options"] |= {"width": 1 / 16}
    tree["data"] |= {"name": "digits"}
    tree["pretrain"] |= {"data": "digits"}
    tree["transfer"] |= {"mask": changes.pop("mask", "")}
    return config.parse(tree | changes)


@pytest.fixture
def run(tmp_path):
    """Makes the folder of an earlier run, with empty files for its networks."""
    folder = tmp_path / "run"
    (folder / "subnetworks").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"data": {"name": "folder:/my/images"}}))
    for name in ("vpns-s90-seed7", "vpns-s90-seed9", "hydra-s95-seed3", "magnitude-s80-seed7"):
        for end in (".safetensors", ".task.safetensors"):
            (folder / "subnetworks" / f"{name}{end}").touch()
    return folder / "subnetworks"


def named(run, *patterns):
    return transfer.sources([str(run / pattern) for pattern in patterns], parsed())


def test_one_mask_serves_every_seed_and_several_their_own(run):
    retrained = transfer.cells(parsed(), named(run, "vpns-s90-*.safetensors", "hydra-s95-seed3.safetensors"))
    assert {
        key: (made.methods, made.densities, made.seeds, made.transfer.mask == str(source.path), source.seed)
        for key, (made, source) in retrained.items()
    } == {
        ("vpns from folder:/my/images", 0.1, 7): (("transfer+prompt",), (0.1,), (7,), True, 7),
        ("vpns from folder:/my/images", 0.1, 9): (("transfer+prompt",), (0.1,), (9,), True, 9),
        ("hydra from folder:/my/images", 0.05, 7): (("transfer",), (0.05,), (7,), True, 3),
        ("hydra from folder:/my/images", 0.05, 9): (("transfer",), (0.05,), (9,), True, 3),
    }


def test_what_cannot_be_transferred_is_said_in_a_line(run):
    for pattern, match in (
        ("snip*", "there is no .*snip"),
        ("../config.json", "is not FOLDER/subnetworks/CELL.safetensors of a run"),
        ("magnitude*", r"is of 80% sparsity; config\.densities are \(0\.1, 0\.05\)"),
    ):
        with pytest.raises(UserError, match=match):
            named(run, pattern)
    with pytest.raises(UserError, match="--from is missing"):
        named(run)
    with pytest.raises(UserError, match=r"at seeds \[7, 9\]; config.seeds are \[7\]"):
        transfer.cells(parsed(seeds=(7,)), named(run, "vpns*"))
    with pytest.raises(UserError, match=r"names two of vpns from .* with one seed"):
        transfer.cells(parsed(), named(run, "vpns*", "vpns-s90-seed9.safetensors"))
    with pytest.raises(UserError, match=r"config\.transfer\.mask is ''; transfer takes"):
        parsed(methods=("transfer",))


def pretend(run):
    """Replaces a run, which would take minutes; a transferred mask loses 2 points with seed 7, and 4 with seed 9."""
    reduced, folder, line = run
    (cell,) = experiment.cells(reduced)
    Workdir(folder, reduced, {inputs.MASK: inputs.mask(reduced)} if cell.method.startswith("transfer") else {})
    accuracy = 0.9 - (cell.seed - 5) / 100 * cell.method.startswith("transfer")
    result = sample(cell.method, cell.density, cell.seed, accuracy, None)
    (folder / "summary.json").write_text(json.dumps({"command": line, "cells": [result]}))


def test_each_is_compared_with_its_method_there(run, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "run_all", in_process.run_all)
    # The masks of every folder differ.
    monkeypatch.setattr(inputs, "mask", lambda config: inputs.Input(config.transfer.mask, config.transfer.mask))
    folder, target = tmp_path / "out", parsed(densities=(0.1,))

    def go(masks):
        return transfer.transfer(target, folder, "a", masks, jobs=1, devices=[], check=bool, work=pretend)

    assert go(named(run, "vpns*")) == 0
    # Differences of 2 and 4 points: standard deviation 1.41; Student's t with one degree of freedom is 12.71.
    assert list(csv.reader((folder / "transfer.csv").read_text().splitlines()))[1:] == [
        ["vpns from folder:/my/images", "90%", "2", "87.0 ± 1.4", "-3.00", "-15.71 to +9.71", "ties"],
        ["vpns", "90%", "2", "90.0 ± 0.0", "", "", ""],
        ["hydra", "90%", "2", "90.0 ± 0.0", "", "", ""],
    ]
    assert go(named(run, "vpns*")) == 0
    # The mask of another run with the same name is not taken for the first one.
    other = run.parent.parent / "other"
    run.parent.rename(other)
    with pytest.raises(UserError, match=r"its mask was .*seed7.safetensors.* holds something else"):
        go(named(other / "subnetworks", "vpns*"))


def test_two_masks_that_would_share_a_folder_are_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "run_all", in_process.run_all)
    other = tmp_path / "other" / "subnetworks"
    other.mkdir(parents=True)
    (other / "vpns-s90-seed7.safetensors").touch()
    (other.parent / "config.json").write_text(json.dumps({"data": {"name": "folder:/my_images"}}))
    masks = named(run, "vpns-s90-seed7.safetensors", str(other / "vpns*"))
    with pytest.raises(UserError, match=r"vpns from folder:/my_images .*vpns_from_folder__my_images-s90-seed7"):
        transfer.transfer(parsed(), tmp_path / "out", "a", masks, jobs=1, devices=[], check=bool, work=pretend)


@pytest.mark.parametrize("letter", ["a", "é"])
def test_masks_from_a_long_path_have_a_folder(run, tmp_path, monkeypatch, letter):
    monkeypatch.setattr(workers, "run_all", in_process.run_all)
    monkeypatch.setattr(inputs, "mask", lambda config: inputs.Input(config.transfer.mask, config.transfer.mask))
    (run.parent / "config.json").write_text(json.dumps({"data": {"name": f"folder:/{f'{letter * 60}/' * 5}"}}))
    target, folder = parsed(densities=(0.1,)), tmp_path / "out"
    masks = named(run, "vpns*")
    assert transfer.transfer(target, folder, "a", masks, jobs=1, devices=[], check=bool, work=pretend) == 0
    made = [path.name for path in (folder / "runs").iterdir() if letter * 60 in path.name]
    assert sorted(name[-6:] for name in made) == ["-seed7", "-seed9"]


def test_the_table_is_written_while_the_folder_is_locked(run, tmp_path, monkeypatch):
    def write(table, folder, name):
        with pytest.raises(UserError, match="is in use"), lock.locked(folder):
            pass
        written.append(name)

    written = []
    monkeypatch.setattr(paired, "write", write)
    monkeypatch.setattr(workers, "run_all", in_process.run_all)
    monkeypatch.setattr(inputs, "mask", lambda config: inputs.Input(config.transfer.mask, config.transfer.mask))
    masks = named(run, "vpns*")
    transfer.transfer(
        parsed(densities=(0.1,)), tmp_path / "out", "a", masks, jobs=1, devices=[], check=bool, work=pretend
    )
    assert written == ["transfer"]


def test_a_run_refuses_a_mask_of_another_network_or_density(tmp_path, monkeypatch):
    monkeypatch.setenv("VPNS_JAX_CACHE", str(tmp_path / "cache"))

    def save(classes, density):
        """Makes a narrow ResNet-18 of zeros, and its mask."""
        path = tmp_path / f"vpns-s90-seed{classes}.safetensors"
        model = models.create("resnet18", num_classes=classes, width=1 / 16)
        shapes = initializing.shapes(model, image_size=32)
        variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        kernels, kept = models.prunable(variables["params"]), 0
        left = sparsity.selection.count(kernels) - sparsity.pruned_count(kernels, density)
        leaves, structure = jax.tree.flatten(kernels)
        masks = []
        for leaf in leaves:
            # The first weights, in the order of the tree's leaves.
            masks.append((np.arange(leaf.size) < left - kept).reshape(leaf.shape))
            kept += int(masks[-1].sum())
        mask = jax.tree.unflatten(structure, masks)
        prompt = prompting.create("none", canvas_size=32).init()
        subnetwork = Subnetwork(
            variables["params"], mask, variables["batch_stats"], prompt, np.arange(10, dtype=np.int32) % classes
        )
        subnetworks.save(path, "resnet18", subnetwork)
        return parsed(methods=("transfer",), densities=(0.1,), seeds=(7,), mask=str(path))

    # The source network has ten classes.
    experiment.check(save(10, 0.1))
    with pytest.raises(UserError, match=r"head/kernel is \(32, 7\) there and \(32, 10\) here"):
        experiment.check(save(7, 0.1))
    with pytest.raises(
        UserError, match=r"keeps 8,899 of 44,492 weights; config\.densities holds 0\.1, which keeps 4,450"
    ):
        experiment.check(save(10, 0.2))
    with pytest.raises(UserError, match="no such file"):
        experiment.check(parsed(methods=("transfer",), densities=(0.1,), mask=str(tmp_path / "none.safetensors")))
