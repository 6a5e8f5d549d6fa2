"""Densities of layers by Erdos-Renyi-Kernel, by hand."""

import numpy as np
import pytest
from hypothesis import given, settings

from tests.sparsity.granular import SHAPES, VALUES, kept_groups, pattern, tree
from vpns_jax import sparsity
from vpns_jax.sparsity import allocation

# The sizes are 18, 100 and 8; the sums of dimensions are 9, 20 and 6.
THREE = [[(3, 3, 1, 2)], [(10, 10)], [(4, 2)]]


@pytest.mark.parametrize(
    ("density", "expected"),
    [
        # e = 31.5 / 35: no layer is full.
        (0.25, [0.9 * 9 / 18, 0.9 * 20 / 100, 0.9 * 6 / 8]),
        # e = 63 / 35 = 1.8 overfills the third (1.35); then e = (63 - 8) / 29.
        (0.5, [55 / 29 * 9 / 18, 55 / 29 * 20 / 100, 1.0]),
        # 69.3 / 35 overfills the third, 61.3 / 29 = 2.11 the first (1.06); then e = (69.3 - 26) / 20.
        (0.55, [1.0, 0.433, 1.0]),
        (1.0, [1.0, 1.0, 1.0]),
    ],
)
def test_erk_by_hand(density, expected):
    shares = allocation.erk(THREE, density)
    np.testing.assert_allclose(shares, expected, rtol=1e-12)
    assert np.dot(shares, [18, 100, 8]) == pytest.approx(density * 126)


def test_erk_takes_coupled_kernels_for_one_layer():
    """Sizes 18 + 8 and 100, dimensions 9 + 6 and 20: e = 25.2 / 35."""
    np.testing.assert_allclose(allocation.erk([[(3, 3, 1, 2), (4, 2)], [(10, 10)]], 0.2), [0.72 * 15 / 26, 0.72 * 0.2])


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(values=VALUES)
def test_erk_masks_keep_its_densities_exactly(values):
    """Dimensions 11, 9, 10; sizes 48, 12, 24: e = 42 / 30 overfills the second (1.05); then e = (42 - 12) / 21."""
    mask = sparsity.structured_mask(tree(values, SHAPES), 0.5, pattern("weight", "erk"))
    kept = {"conv": 48 - int((1 - 110 / 7 / 48) * 48), "down": 12, "fc": 24 - int((1 - 100 / 7 / 24) * 24)}
    assert kept_groups(mask, "weight") == kept == {"conv": 16, "down": 12, "fc": 15}
