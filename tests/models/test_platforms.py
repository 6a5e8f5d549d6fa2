"""The device that a program is traced for decides how it computes, not the machine that traces it."""

import jax
import jax.numpy as jnp
import pytest
from jax import export
from jax.sharding import AbstractDevice, AbstractMesh

from vpns_jax.models.cpu import platforms
from vpns_jax.models.resnet import ResNet
from vpns_jax.parallel import sharding


def mesh_of(platform):
    return AbstractMesh((), (), abstract_device=AbstractDevice("a device", 1, platform))


@pytest.mark.parametrize("platform", ["tpu", "gpu", "cpu"])
def test_the_mesh_in_force_says_what_for(platform):
    with jax.sharding.use_abstract_mesh(mesh_of(platform)), jax.default_device("cpu"):
        assert platforms.traced_for() == platform


def test_without_a_mesh_it_is_the_default_device(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert platforms.traced_for() == "tpu"
    for device in ("cpu", jax.devices("cpu")[1]):
        with jax.default_device(device):
            assert platforms.traced_for() == "cpu"


def test_a_mesh_of_devices_says_what_for(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with jax.set_mesh(sharding.make_mesh(8)):
        assert platforms.traced_for() == "cpu"
        assert jax.jit(lambda x: x + (platforms.traced_for() == "cpu"))(1) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("platform", "name"), [("tpu", "tpu"), ("gpu", "cuda")])
def test_a_network_is_exported_for_other_devices(platform, name):
    """As exports as StableHLO do it: the program uses that device's convolutions and pooling."""
    model = ResNet(depths=(1, 1), block="basic", num_classes=10, width=1 / 8)
    images = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    predict = jax.jit(model.apply)
    here = export.export(predict)(variables, images).mlir_module()
    with jax.sharding.use_abstract_mesh(mesh_of(platform)):
        there = export.export(predict, platforms=[name])(variables, images).mlir_module()
    layers = {"convolution": 6, "dot_general": 1, "reduce_window": 1}
    for operation, count in layers.items():
        assert there.count(f"stablehlo.{operation}") == count
    assert here.count("stablehlo.convolution") == here.count("stablehlo.reduce_window") == 0
