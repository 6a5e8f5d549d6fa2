"""Runs on one and eight devices, with batches and parameters split in several ways, give the same masks and numbers."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests.training import tiny
from vpns_jax import models, prompting, sparsity
from vpns_jax.errors import UserError
from vpns_jax.models.resnet import ResNet
from vpns_jax.parallel import sharding
from vpns_jax.training.epochs import scan_epoch
from vpns_jax.training.evaluation import evaluate
from vpns_jax.training.network import Network, Subnetwork, forward
from vpns_jax.training.state import TrainState
from vpns_jax.training.views import FixedMask


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch):
    """Lowers the threshold, so that the two kernels and the prompt of the tiny network are split."""
    monkeypatch.setattr(sharding, "LARGE", 8)


def mesh_of(data, fsdp):
    return sharding.make_mesh(tiny.BATCH, jax.devices()[: data * fsdp], data=data, fsdp=fsdp)


def begin_on(mesh, learns, **recipe):
    """Makes a stage, its state and its data, as at the start of a runner."""
    rng = np.random.default_rng(1)
    mask = jax.tree.map(lambda w: rng.random(w.shape) < 0.5, models.prunable(tiny.variables()["params"]))
    stage, state = tiny.begin(learns, mask=mask, **recipe)
    state = dataclasses.replace(state, frozen=sharding.place(state.frozen, mesh))
    return stage, state, sharding.replicate(tiny.split(), mesh)


@dataclasses.dataclass(frozen=True)
class Ran:
    """An epoch that was run on a mesh: its compiled module, what it left, and its numbers on the host."""

    text: str
    state: TrainState
    network: Subnetwork
    mask: object
    numbers: tuple


# Kept, because the tests look at the same few programs.
@functools.cache
def epoch_on(layout, learns, protocol):
    """Compiles an epoch on a mesh and runs it."""
    mesh = mesh_of(*layout)
    with jax.set_mesh(mesh):
        stage, state, data = begin_on(mesh, learns, protocol=protocol)
        arguments = (dataclasses.replace(state, frozen={}), state.frozen, data, jax.random.key(3), jnp.int32(0))
        program = scan_epoch.lower(stage, *arguments).compile()
        after, metrics = program(*arguments)
        state = dataclasses.replace(after, frozen=state.frozen)
        network = stage.subnetwork(state)
        seen = evaluate(stage.network, network, data, batch_size=tiny.BATCH, confusion=True)
        numbers = (state.learned, state.batch_stats, metrics, seen)
        return Ran(program.as_text(), state, network, *jax.device_get((network.mask, numbers)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learns", "protocol", "layout"), [("scores", "paper", (4, 2)), ("weights", "reference", (8, 1))]
)
def test_every_layout_agrees_with_one_device(learns, protocol, layout):
    one, other = (epoch_on(each, learns, protocol) for each in ((1, 1), layout))
    assert tiny.same(other.mask, one.mask)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), other.numbers, one.numbers)


def shard_shapes(tree):
    """Lists the shapes of each array on its devices, by its global shape."""
    return {(x.shape, shard.data.shape) for x in jax.tree.leaves(tree) for shard in x.addressable_shards}


def collectives(text):
    """Lists (operation, shape of the first result, origin) of all communication in a compiled module."""
    line = r"= \(?\w+\[([\d,]*)\].*? (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(.*op_name=\"([^\"]*)\""
    return [
        (name, tuple(map(int, filter(None, shape.split(",")))), where) for shape, name, where in re.findall(line, text)
    ]


@pytest.mark.slow
def test_fsdp_splits_all_that_is_large_and_gathers_only_masked_weights():
    kernels = {((2, 2, 3, 4), (2, 2, 3, 2)), ((4, 5), (2, 5))}
    ran = epoch_on((4, 2), "scores", "paper")
    state = ran.state
    assert shard_shapes(state.learned["scores"]) == kernels
    assert shard_shapes(ran.network.mask) == kernels
    assert kernels < shard_shapes(state.frozen["weights"])
    # Two moments split like their scores, besides scalars and the state of the prompt's optimizer.
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.shape in dict(kernels)]
    assert shard_shapes(moments) == kernels
    assert len(moments) == 4
    sent = collectives(ran.text)
    # Each masked kernel once, and the prompt. Nothing for the selection, which only sends seven counts.
    prompt = [x.shape for x in jax.tree.leaves(state.learned["prompt"]) if x.size >= sharding.LARGE]
    gathered = [shape for name, shape, _ in sent if name == "all-gather"]
    assert sorted(gathered) == sorted([*dict(kernels), *prompt])
    assert {(name, shape) for name, shape, where in sent if "prune" in where} == {("all-reduce", (7,))}


@pytest.mark.slow
def test_a_fixed_mask_lies_where_its_weights_do():
    shapes = {"tall": (64, 16), "wide": (16, 64), "kernel": (3, 3, 16, 16), "reduction": (1, 1, 32, 16)}
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    mask = jax.tree.map(lambda x: x > 0, weights)
    bits = sparsity.pack(mask)
    mesh = mesh_of(1, 8)
    with jax.set_mesh(mesh):
        groups = sharding.place({"weights": weights, "packed_mask": bits}, mesh)
        assert all(x.sharding.spec != PartitionSpec() for x in jax.tree.leaves(groups))
        masked = jax.jit(lambda groups: sharding.split_parameters(sparsity.apply(*FixedMask()(groups))))
        program = masked.lower(groups).compile()
        assert collectives(program.as_text()) == []
        jax.tree.map(lambda x, w, m: np.testing.assert_array_equal(x, w * m), program(groups), weights, mask)


def test_large_arrays_are_gathered_as_what_is_computed_with():
    x = {"kernel": jnp.linspace(-1, 1, 16).reshape(2, 8), "bias": jnp.ones(4)}
    assert sharding.gather_parameters(x, "bfloat16") is x
    mesh = mesh_of(1, 8)
    with jax.set_mesh(mesh):
        gather = jax.jit(lambda x: sharding.gather_parameters(x, "bfloat16"))
        gathered = gather(sharding.place(x, mesh))
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(gather(x)["kernel"] * 0.1)))(sharding.place(x, mesh))
    assert gathered["kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(gathered["kernel"], x["kernel"].astype(jnp.bfloat16))
    np.testing.assert_array_equal(gathered["bias"], x["bias"])
    assert gathered["bias"].dtype == jnp.float32
    # The gradient has the dtype and the split of the kernel.
    np.testing.assert_array_equal(gradient["kernel"], jnp.full((2, 8), jnp.bfloat16(0.1), jnp.float32))
    assert shard_shapes(gradient["kernel"]) == {((2, 8), (2, 1))}


def test_kernels_are_sent_in_the_networks_dtype():
    """The program before XLA for CPU widens it, because that cannot communicate in bfloat16."""
    blank = prompting.create("none", canvas_size=32)
    model = ResNet((1, 0, 0, 0), "basic", num_classes=8, width=0.25, dtype="bfloat16")
    network = Network(model, blank, blank, (0.5,) * 3, (0.25,) * 3)
    images = jnp.zeros((8, 32, 32, 3), jnp.uint8)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))

    def logits(variables):
        what = {"weights": variables["params"], "mask": {}, "batch_stats": variables["batch_stats"]}
        return forward(network, **what, prompt=None, images=images, mapping=None, train=False)[0]

    with jax.set_mesh(mesh_of(4, 2)):
        text = jax.jit(logits).lower(variables).as_text()
    sent = re.findall(r"sharding_constraint .*: tensor<([^>]*)>", text)
    assert {"7x7x3x16xbf16", "3x3x16x16xbf16"} <= set(sent)
    assert not any(kind.startswith(("7x7", "3x3")) and kind.endswith("f32") for kind in sent)


def test_the_longest_axis_that_divides_is_split(monkeypatch):
    monkeypatch.setattr(sharding, "LARGE", 2**15)
    assert sharding.partition((3, 3, 64, 64), 8) == PartitionSpec(None, None, None, "fsdp")
    assert sharding.partition((1024, 1000), 16) == PartitionSpec("fsdp")
    assert sharding.partition((1024, 1000), 8) == PartitionSpec("fsdp")
    # Too small, not divisible, and only one device along fsdp.
    assert sharding.partition((64, 64), 8) == PartitionSpec()
    assert sharding.partition((999, 999), 8) == PartitionSpec()
    assert sharding.partition((1024, 1000), 1) == PartitionSpec()


def test_a_batch_is_really_split():
    for layout in ((8, 1), (2, 4)):
        with jax.set_mesh(sharding.make_mesh(16, jax.devices()[:8], data=layout[0], fsdp=layout[1])):
            x = jax.jit(sharding.split_batch)(jnp.zeros((16, 3)))
        assert {shard.data.shape for shard in x.addressable_shards} == {(2, 3)}


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="batch_size is 12; 8 devices allow multiples of 8"):
        sharding.make_mesh(12, jax.devices()[:8])


@pytest.mark.parametrize(
    ("data", "fsdp", "expected"), [(-1, 1, (8, 1)), (-1, 2, (4, 2)), (2, -1, (2, 4)), (8, 1, (8, 1))]
)
def test_one_axis_takes_what_the_other_leaves(data, fsdp, expected):
    mesh = sharding.make_mesh(8, jax.devices()[:8], data=data, fsdp=fsdp)
    assert (mesh.shape["data"], mesh.shape["fsdp"]) == expected


@pytest.mark.parametrize(("data", "fsdp"), [(-1, 3), (3, -1), (2, 2), (16, 1), (-1, -1), (0, -1), (-1, 0), (-2, -4)])
def test_a_mesh_that_the_devices_do_not_fill_is_refused(data, fsdp):
    with pytest.raises(UserError, match=rf"config.mesh is data {data} x fsdp {fsdp}, .* or one of 1, 2, 4, 8"):
        sharding.make_mesh(48, jax.devices()[:8], data=data, fsdp=fsdp)


def test_without_a_mesh_nothing_is_asked():
    x = jnp.arange(6)
    assert sharding.split_batch(x) is x
    assert sharding.split_parameters(x) is x
    assert sharding.gather_parameters(x) is x


def test_a_gathered_arrays_second_derivatives_are_right():
    """GraSP uses the derivative of the gradient along a vector."""
    x, v = jnp.arange(8.0).reshape(2, 4), jnp.ones((2, 4))
    with jax.set_mesh(mesh_of(4, 2)):
        gradient = jax.grad(lambda x: jnp.sum(sharding.gather_parameters(x) ** 3))
        _, product = jax.jit(lambda x, v: jax.jvp(gradient, (x,), (v,)))(x, v)
    np.testing.assert_allclose(product, 6 * np.arange(8.0).reshape(2, 4))
