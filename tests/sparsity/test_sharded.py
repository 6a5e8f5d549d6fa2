"""Selection on sharded trees: only counts leave a device, and masks do not depend on how many devices there are."""

import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vpns_jax import sparsity
from vpns_jax.sparsity import selection
from vpns_jax.sparsity.selection import search

pytestmark = pytest.mark.slow

SEARCHES = [search.interpolation, search.bisection, search.bisection_by_rows]
# How the leaves of `scores` are split over a mesh with the axes "data" and "fsdp".
LAYOUTS = {
    "one mesh axis": ("fsdp", (None, None, None, "fsdp"), "fsdp", (None, "fsdp")),
    "both mesh axes": (("fsdp", "data"), (None, None, "data", "fsdp"), (("data", "fsdp"),), ("data",)),
    "some": (("data",), (), (), (None, "fsdp")),
}
ELEMENTS = 75_848


def scores():
    """A tree of floats, enough to take a sample; a third of them have ties."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal(ELEMENTS).astype(np.float32)
    x = np.where(rng.random(x.size) < 0.35, np.round(2 * x) / 2, x)
    shapes, leaves, start = ((256, 128), (3, 3, 64, 64), (8,), (8, 776)), [], 0
    for shape in shapes:
        leaves.append(x[start : start + math.prod(shape)].reshape(shape))
        start += math.prod(shape)
    return leaves


def put(leaves, layout, shape, axis_type=AxisType.Auto):
    devices = jax.devices()[: math.prod(shape)]
    mesh = jax.make_mesh(shape, ("data", "fsdp"), axis_types=(axis_type,) * 2, devices=devices)
    specs = [PartitionSpec(*((spec,) if isinstance(spec, str) else spec)) for spec in LAYOUTS[layout]]
    return [jax.device_put(leaf, NamedSharding(mesh, spec)) for leaf, spec in zip(leaves, specs, strict=True)]


def communication(text):
    """The bytes of each collective in a compiled module, and the operations in it that selection must not use."""
    sizes = []
    for line in re.findall(r"= (.*?) all-reduce(?:-start)?\(", text):
        for dtype, shape in re.findall(r"([a-z]+\d+)\[([\d,]*)\]", line):
            sizes.append(int(re.sub(r"\D", "", dtype)) // 8 * math.prod(int(d) for d in shape.split(",") if d))
    shunned = r" (all-gather|all-to-all|collective-permute|reduce-scatter|gather|sort|scatter)(?:-start)?\("
    return sizes, sorted(set(re.findall(shunned, text)))


def test_communication_is_found_where_there_is_some():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = jax.device_put(jnp.ones((8, 4)), NamedSharding(mesh, PartitionSpec("data")))
    text = jax.jit(lambda x: (x.sum(0), jnp.sort(x.ravel()))).lower(x).compile().as_text()
    sizes, shunned = communication(text)
    assert 16 in sizes
    assert {"all-gather", "sort"} <= set(shunned)


# The first search on all layouts, the others on the two that differ most from one another.
pairs = [*((layout, SEARCHES[0]) for layout in LAYOUTS), *itertools.product(("both mesh axes", "some"), SEARCHES[1:])]


def check_masks(prune, tree, numbers):
    """Compares masks with those of a stable sort; `prune` is a function of the number to prune."""
    flat = np.abs(np.concatenate([leaf.ravel() for leaf in tree]))
    order = np.argsort(flat, kind="stable")
    for pruned in numbers:
        expected = np.ones(flat.size, bool)
        expected[order[:pruned]] = False
        np.testing.assert_array_equal(np.concatenate([np.asarray(leaf).ravel() for leaf in prune(pruned)]), expected)


@pytest.mark.parametrize(("layout", "algorithm"), pairs)
def test_only_counts_are_sent_and_every_search_finds_the_same_in_parts(layout, algorithm):
    tree = scores()
    parts = put(tree, layout, (2, 4))
    select = jax.jit(lambda tree, pruned: sparsity.prune_smallest(tree, pruned, algorithm))
    program = select.lower(parts, np.int32(0)).compile()
    sizes, shunned = communication(program.as_text())
    assert shunned == []
    assert sizes
    # A pass reduces each of these once, and there are fewer than thirty passes.
    assert 30 * sum(sizes) < 1_000_000
    check_masks(lambda pruned: program(parts, np.int32(pruned)), tree, (1, 30_000))


def test_tpus_are_handed_nothing_of_ours():
    """Custom partitioning rules do not compile for TPUs."""

    select = jax.jit(lambda tree: sparsity.prune_smallest(tree, 1000))
    traced = select.trace(put(scores(), "both mesh axes", (2, 4)))

    def lowered(platform):
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "CustomSPMDPartitioning" in lowered("cpu")
    assert "custom_call" not in lowered("tpu")


@pytest.mark.parametrize(
    ("shape", "axis_type"),
    # Others have eight devices in the "auto" mode above.
    [((1, 1), AxisType.Auto), ((2, 4), AxisType.Explicit)],
)
def test_masks_do_not_depend_on_the_devices(shape, axis_type):
    tree = scores()
    parts = put(tree, "both mesh axes", shape, axis_type)
    check_masks(lambda pruned: sparsity.prune_smallest(parts, pruned), tree, (0, 1, 30_000, 60_000, ELEMENTS - 1))


@pytest.mark.parametrize("algorithm", SEARCHES)
def test_every_search_finds_the_same_in_explicit_parts(algorithm):
    """With their signs, too, which masks do not look at."""
    tree, to_float = scores(), jax.jit(selection.key_to_float)
    flat = np.concatenate([leaf.ravel() for leaf in tree])
    parts = put(tree, "both mesh axes", (2, 4), AxisType.Explicit)
    for k in (1, 30_000, flat.size):
        key, rank = selection.kth_smallest_key(parts, np.int32(k), algorithm)
        kth = np.partition(flat, k - 1)[k - 1]
        assert to_float(np.asarray(key)) == kth
        assert int(rank) == k - np.sum(flat < kth)


def test_uneven_shards_are_counted_once():
    """XLA may split an intermediate array unevenly; the padding of its shards must not be counted."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = np.random.default_rng(0).standard_normal((16, 15)).astype(np.float32)
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    kth_smallest = jax.jit(lambda x, k: sparsity.kth_smallest([x[:11]], k))
    for k in (1, 80, 165):
        kth = kth_smallest(sharded, np.int32(k))
        assert kth == np.sort(x[:11], axis=None)[k - 1]
