"""The files of a finished network: pruned weights are zero, and everything can be loaded again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.tiny import same
from vpns_jax import models, prompting, sparsity
from vpns_jax.deploy import subnetworks
from vpns_jax.errors import UserError
from vpns_jax.models.formats import read
from vpns_jax.training.network import Subnetwork

WIDTH = 1 / 16


@pytest.fixture(scope="module")
def subnetwork():
    model = models.create("resnet18", num_classes=5, width=WIDTH)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: jnp.asarray(np.asarray(rng.normal(size=x.shape) if x.dtype == jnp.float32 else 3, x.dtype)), shapes
    )
    prompt = prompting.create("pad", canvas_size=32, pad_size=3).init()
    return Subnetwork(
        weights=variables["params"],
        mask=jax.tree.map(lambda w: jnp.asarray(rng.random(w.shape) < 0.1), models.prunable(variables["params"])),
        batch_stats=variables["batch_stats"],
        prompt=jax.tree.map(lambda x: x + 0.25, prompt),
        mapping=jnp.asarray([4, 0, 2], jnp.int32),
    )


@pytest.mark.slow
def test_all_of_it_comes_back(subnetwork, tmp_path):
    path = tmp_path / "vpns-s99.5-seed7.safetensors"
    subnetworks.save(path, "resnet18", subnetwork)
    loaded = subnetworks.load(path, "resnet18", image_size=32, width=WIDTH)
    for field in ("mask", "batch_stats", "prompt", "mapping"):
        assert same(getattr(loaded, field), getattr(subnetwork, field))
    assert same(loaded.weights, sparsity.apply(subnetwork.weights, subnetwork.mask))
    bits = subnetworks.load_bits(path)
    assert set(bits) == {"/".join(key.key for key in keys) for keys, _ in jax.tree.leaves_with_path(subnetwork.mask)}
    assert sum(int(np.unpackbits(packed).sum()) for packed in bits.values()) == sum(
        int(np.asarray(leaf).sum()) for leaf in jax.tree.leaves(loaded.mask)
    )


def test_the_file_holds_true_zeros_in_torchvisions_layout(subnetwork, tmp_path):
    path = tmp_path / "cell.safetensors"
    subnetworks.save(path, "resnet18", subnetwork)
    tensors = read(path)
    assert tensors["conv1.weight"].shape == (4, 3, 7, 7)
    kernels = [x for name, x in tensors.items() if x.ndim == 4 or name == "fc.weight"]
    kept = sum(int(np.asarray(leaf).sum()) for leaf in jax.tree.leaves(subnetwork.mask))
    assert sum(np.count_nonzero(x) for x in kernels) == kept


def test_files_of_two_networks_are_no_pair(subnetwork, tmp_path):
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    subnetworks.save(path, "resnet18", subnetwork)
    inverse = jax.tree.map(np.logical_not, jax.device_get(subnetwork.mask))
    subnetworks.save(other, "resnet18", dataclasses.replace(subnetwork, mask=inverse))
    (tmp_path / "b.task.safetensors").replace(tmp_path / "a.task.safetensors")
    with pytest.raises(UserError, match="not one pair"):
        subnetworks.load(path, "resnet18", image_size=32, width=WIDTH)


def test_a_missing_half(subnetwork, tmp_path):
    path = tmp_path / "a.safetensors"
    subnetworks.save(path, "resnet18", subnetwork)
    (tmp_path / "a.task.safetensors").unlink()
    with pytest.raises(UserError, match=r"a\.task\.safetensors: no such file"):
        subnetworks.load(path, "resnet18", image_size=32, width=WIDTH)
