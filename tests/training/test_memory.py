"""The arrays that a compiled epoch of training keeps in memory, and those that it must not keep."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import pytest

from tests.training import tiny
from vpns_jax import models, prompting, sparsity
from vpns_jax.models.resnet import ResNet
from vpns_jax.training.batches import Resident
from vpns_jax.training.epochs import scan_epoch
from vpns_jax.training.network import Network, Subnetwork
from vpns_jax.training.stage import Recipe, learn_scores, learn_weights

# What is kept between iterations does not depend on how a convolution is computed.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_winograd")]

SIZE, BATCH, CLASSES = 32, 16, 5
# Two such blocks, a stem and a head: 83 thousand weights.
KERNEL = (3, 3, 64, 64)


def network(prompt="pad"):
    return Network(
        model=ResNet((1, 0, 0, 0), "basic", num_classes=CLASSES),
        prompt=prompting.create(prompt, canvas_size=SIZE, pad_size=2),
        plain=prompting.create("none", canvas_size=SIZE),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


# Kept, because the tests look at the same few programs.
@functools.cache
def start(learns, protocol="paper", *, masked=True, prompt="pad"):
    """Compiles an epoch of a stage; returns the program, and the shapes of its first state and its mask."""
    network_, made = network(prompt), []

    def first():
        variables = network().model.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
        params, batch_stats = variables["params"], variables["batch_stats"]
        kernels = models.prunable(params)
        pruned = jnp.int32(sparsity.pruned_count(kernels, 0.1))
        mask = jax.tree.map(lambda w: w > 0, kernels) if masked else {}
        begin = Subnetwork(params, mask, batch_stats, network_.prompt.init(), jnp.arange(CLASSES))
        recipe = Recipe(protocol, tiny.BATCH, tiny.LENGTH.epochs, tiny.OPTIMIZERS)
        if learns == "scores":
            scores = sparsity.scaled_init(kernels)
            stage, state = learn_scores(network_, begin, scores, recipe, 2, pruned=pruned, pattern=sparsity.Pattern())
        else:
            stage, state = learn_weights(network_, begin, recipe, 2)
        made.append(stage)
        return state, mask

    # Shapes are enough to compile.
    state, mask = jax.eval_shape(first)
    data = Resident(
        images=jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8),
        labels=jax.ShapeDtypeStruct((BATCH,), jnp.int32),
        large=jax.ShapeDtypeStruct((BATCH, SIZE + 4, SIZE + 4, 3), jnp.uint8),
    )
    moving = dataclasses.replace(state, frozen={})
    compiled = scan_epoch.lower(made[0], moving, state.frozen, data, jax.random.key(0), jnp.int32(0)).compile()
    return compiled, state, mask


def peak(compiled):
    memory = compiled.memory_analysis()
    own = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + own + memory.temp_size_in_bytes


def size(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def carried(compiled):
    """Lists (dtype, shape) of all arrays that the loop over iterations carries."""
    loops = re.findall(r"= \((.*?)\) while\(.*?\).*?op_name=\"jit\(scan_epoch\)/while\"", compiled.as_text())
    assert len(loops) == 1
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", re.sub(r"/\*.*?\*/", "", loops[0]))
    return [(dtype, tuple(map(int, filter(None, shape.split(","))))) for dtype, shape in arrays]


@pytest.fixture(scope="module")
def dense():
    """Fine-tuning has neither a mask nor a prompt."""
    return start("weights", masked=False, prompt="none")


@pytest.mark.parametrize("protocol", ["paper", "reference"])
def test_learning_a_mask_takes_the_dense_steps_memory_the_scores_and_their_optimizer(dense, protocol):
    compiled, state, _ = start("scores", protocol)
    scores = size(state.learned["scores"])
    assert peak(compiled) <= 1.15 * peak(dense[0]) + 3 * scores
    # The loop carries weights, scores and two moments, but no mask and no positions of weights.
    kernels = [dtype for dtype, shape in carried(compiled) if shape == KERNEL]
    assert kernels == ["f32"] * 4 * 2


def test_a_fixed_mask_takes_a_bit_a_weight(dense):
    compiled, state, mask = start("weights", "paper")
    bits = state.frozen["packed_mask"]
    # The three channels of the stem fill three of eight bits, the five outputs of the head fill five.
    assert size(bits) == (size(mask) + 7 * 7 * 5 * 64 + 3 * 64) // 8
    # Weights and momentum; of the mask only its bits.
    held = carried(compiled)
    assert [dtype for dtype, shape in held if shape == KERNEL] == ["f32"] * 2 * 2
    assert [shape for dtype, shape in held if dtype == "u8" and len(shape) == 4].count((3, 3, 8, 64)) == 2
    # The masked weights of one layer at a time.
    assert peak(compiled) <= 1.15 * peak(dense[0])


@pytest.mark.parametrize("learns", ["scores", "weights"])
def test_an_epoch_moves_its_state_in_place_and_asks_nothing_of_the_host(learns):
    compiled, state, _ = start(learns, "paper")
    assert compiled.memory_analysis().alias_size_in_bytes >= size(dataclasses.replace(state, frozen={}))
    text = compiled.as_text()
    for name in ("callback", "infeed", "outfeed", "send(", "recv("):
        assert name not in text
