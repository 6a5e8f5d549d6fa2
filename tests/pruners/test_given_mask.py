"""The check of a mask from an earlier run: it takes every mask that a pattern makes, and no other."""

import jax
import jax.numpy as jnp
import pytest

from vpns_jax import sparsity
from vpns_jax.errors import UserError
from vpns_jax.pruners.methods.given_mask import check
from vpns_jax.sparsity import Pattern

# How the masks are found does not matter here.
pytestmark = pytest.mark.usefixtures("searched_by_sorting")
DENSE = {name: {"kernel": (5, 2)} for name in "abc"}
BLOCKS = {"a": {"kernel": (8, 20)}}
CONVOLUTIONS = {"a": {"kernel": (3, 3, 2, 4)}, "b": {"kernel": (1, 1, 4, 2)}}
PAIRS = {"a": {"kernel": (8, 3)}, "b": {"kernel": (4, 2)}}


def drawn(shapes):
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
    return jax.tree.unflatten(structure, [jax.random.normal(jax.random.key(i), s) for i, s in enumerate(leaves)])


def pattern(granularity, allocation):
    return Pattern(sparsity.parse_granularity(granularity), allocation)


def checked(mask, kernels, density, of):
    check(mask, kernels, density, name="a.safetensors", weights=kernels, pattern=of)


@pytest.mark.parametrize(
    ("shapes", "granularity", "allocation", "density"),
    [
        (DENSE, "weight", "global", 0.25),
        # int(0.75 * 10) are pruned of each layer, so 9 are kept, and of all 30 weights it would be 8.
        (DENSE, "weight", "uniform", 0.25),
        (DENSE, "weight", "erk", 0.25),
        # Of 10 blocks 3 are kept, 48 weights.
        (BLOCKS, "block:4x4", "global", 0.25),
        (CONVOLUTIONS, "kernel", "global", 0.3),
        (CONVOLUTIONS, "kernel", "uniform", 0.3),
        (PAIRS, "2:4", "global", 0.5),
    ],
)
def test_every_mask_of_the_pattern_will_do(shapes, granularity, allocation, density):
    kernels, of = drawn(shapes), pattern(granularity, allocation)
    checked(sparsity.structured_mask(kernels, density, of), kernels, density, of)


def test_a_mask_of_hydra_layerwise_will_do_with_any_allocation():
    kernels = drawn(DENSE)
    mask = sparsity.structured_mask(kernels, 0.25, pattern("weight", "uniform"))
    for allocation in ("global", "erk"):
        checked(mask, kernels, 0.25, pattern("weight", allocation))


@pytest.mark.parametrize(
    ("shapes", "granularity"), [(CONVOLUTIONS, "kernel"), (BLOCKS, "block:4x4"), (BLOCKS, "channel"), (PAIRS, "2:4")]
)
def test_single_weights_are_no_groups(shapes, granularity):
    kernels = drawn(shapes)
    with pytest.raises(UserError, match=f"does not keep whole groups of granularity {granularity}: a/kernel") as caught:
        checked(sparsity.topk_mask(kernels, 0.5), kernels, 0.5, pattern(granularity, "global"))
    assert "\n" not in str(caught.value)


def test_another_density_is_refused():
    kernels = drawn(DENSE)
    with pytest.raises(UserError, match=r"keeps 15 of 30 weights; config\.densities holds 0\.25, which keeps 8$"):
        checked(sparsity.topk_mask(kernels, 0.5), kernels, 0.25, pattern("weight", "global"))
    blocks = drawn(BLOCKS)
    mask = sparsity.structured_mask(blocks, 0.5, pattern("block:4x4", "global"))
    with pytest.raises(UserError, match=r"keeps 5 of 10 groups; .* which keeps 3$"):
        checked(mask, blocks, 0.25, pattern("block:4x4", "global"))


def test_each_layer_is_compared_where_each_has_its_own_density():
    kernels = drawn(DENSE)
    mask = sparsity.structured_mask(kernels, 0.5, pattern("weight", "uniform"))
    moved = jnp.ones((5, 2), bool).at[0, 0].set(False)
    # As many in all, but 9 and 1 where 5 and 5 should be.
    mask = mask | {"b": {"kernel": moved}, "c": {"kernel": ~moved}}
    with pytest.raises(UserError, match=r"keeps 9 of 10 weights of b/kernel; .* holds 0.5, which keeps 5$"):
        checked(mask, kernels, 0.5, pattern("weight", "uniform"))
