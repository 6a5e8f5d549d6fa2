"""The measured times of a cell: what is timed, and at what cost."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.deploy import families
from vpns_jax import deploy
from vpns_jax.errors import UserError
from vpns_jax.experiment import timing
from vpns_jax.models import coupling
from vpns_jax.models.resnet import ResNet
from vpns_jax.parallel import sharding


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    families.register(monkeypatch)
    with jax.set_mesh(sharding.local_mesh()):
        yield


@pytest.mark.slow
def test_channels_that_a_mask_of_single_weights_left_dead_are_cut_out_and_timed():
    finished = families.classifier("small_stem", prompt="none")
    told = timing.without_dead_channels(finished, families.images(finished))
    # The same classes as before: the head of the smaller network has only the three that are used.
    small = deploy.shrink(finished)
    width = small.subnetwork.weights["head"]["kernel"].shape[0]
    expected = deploy.size_of(small).multiply_adds + width * (7 - 3)
    dense = deploy.size_of(finished).multiply_adds
    assert told["multiply_adds"] == {"dense": dense, "shrunk": expected}
    assert expected < 0.7 * dense
    assert min(told["latency"][which] for which in ("dense", "shrunk")) > 0
    assert "masked" not in told["latency"]


def test_a_network_without_dead_channels_has_no_program_of_its_own():
    finished = families.classifier("small_stem", prompt="none", density=1.0)
    arrays = jax.device_get(finished.subnetwork)
    everything = jax.tree.map(np.ones_like, arrays.mask)
    weights = jax.tree.map(lambda leaf: leaf + 1, arrays.weights)
    subnetwork = jax.device_put(dataclasses.replace(arrays, mask=everything, weights=weights))
    finished = dataclasses.replace(finished, subnetwork=subnetwork)
    assert timing.without_dead_channels(finished, families.images(finished)) == {}


def test_a_network_whose_channels_are_unknown_is_not_cut(monkeypatch):
    def unknown(model):
        raise UserError("no channel can be pruned as a whole")

    monkeypatch.setitem(coupling.FAMILIES, ResNet, unknown)
    finished = families.classifier("small_stem", prompt="none")
    assert timing.without_dead_channels(finished, families.images(finished)) == {}
