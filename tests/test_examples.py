"""The examples run, and prune and train what they say."""

import importlib

import jax
import numpy as np
import pytest

from vpns_jax import sparsity, trees


@pytest.mark.slow
@pytest.mark.usefixtures("searched_by_sorting")
@pytest.mark.parametrize("name", ["own_linen", "own_nnx", "own_equinox"])
def test_example(name, capsys):
    params, correct = importlib.import_module(f"examples.{name}").main(steps=40)
    kernels = trees.named_leaves(sparsity.prunable(params)).values()
    size = sum(leaf.size for leaf in kernels)
    assert size == 25_056
    assert sum(np.count_nonzero(leaf) for leaf in kernels) == size - int((1 - 0.1) * size)
    assert correct > 0.2
    assert capsys.readouterr().out.startswith("density 0.100, correct ")
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
