"""Trees of kernels for tests of granularities, and their groups by plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from vpns_jax import sparsity
from vpns_jax.sparsity import Pattern

# A convolution, a shortcut and a dense layer.
SHAPES = {"conv": {"kernel": (2, 2, 4, 3)}, "down": {"kernel": (1, 1, 4, 3)}, "fc": {"kernel": (4, 6)}}
KERNELS = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), SHAPES, is_leaf=lambda x: type(x) is tuple
)
ELEMENTS = 2 * 2 * 4 * 3 + 4 * 3 + 4 * 6
# For each granularity, the kernels that it can prune and the number of groups in each.
SERVED = {
    "weight": {"conv": 48, "down": 12, "fc": 24},
    "kernel": {"conv": 12, "down": 12},
    "channel": {"conv": 3, "down": 3, "fc": 6},
    "input_channel": {"conv": 4, "down": 4, "fc": 4},
    "block:2x3": {"fc": 4},
}
# Few values, so that ties are common.
VALUES = st.lists(st.sampled_from([0.0, -0.5, 0.5, 1.0, -2.0]), min_size=ELEMENTS, max_size=ELEMENTS)


def pattern(text, allocation="global"):
    return Pattern(sparsity.parse_granularity(text), allocation)


def tree(values, names):
    """The named kernels, filled from a list of numbers."""
    flat, start, kernels = np.asarray(values, np.float32), 0, {}
    for name in SHAPES:
        size = int(np.prod(SHAPES[name]["kernel"]))
        if name in names:
            kernels[name] = {"kernel": jnp.asarray(flat[start : start + size].reshape(SHAPES[name]["kernel"]))}
        start += size
    return kernels


def grouped(x, text):
    """[groups, weights in a group] of a kernel, by plain NumPy."""
    x = np.asarray(x)
    if text == "weight":
        return x.reshape(-1, 1)
    if text == "kernel":
        return np.stack([x[:, :, i, o].ravel() for i in range(x.shape[2]) for o in range(x.shape[3])])
    if text == "channel":
        return np.stack([x[..., o].ravel() for o in range(x.shape[-1])])
    if text == "input_channel":
        return np.stack([x[..., i, :].ravel() for i in range(x.shape[-2])])
    a, b = (int(n) for n in text.removeprefix("block:").split("x"))
    return np.stack([x[i : i + a, j : j + b].ravel() for i in range(0, x.shape[0], a) for j in range(0, x.shape[1], b)])


def kept_groups(mask, text):
    """How many groups of each kernel are kept; fails if a group is kept in part."""
    counts = {}
    for name, branch in mask.items():
        groups = grouped(branch["kernel"], text)
        assert (groups.all(1) == groups.any(1)).all(), f"a group of {name} is kept in part"
        counts[name] = int(groups.all(1).sum())
    return counts
