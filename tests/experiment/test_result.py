"""Notes about a finished cell."""

from vpns_jax.experiment import result


def test_a_mask_over_weights_that_were_zero_already_is_said():
    """The mask keeps 20%, a tenth of it zeros, as when a sparse network is pruned again to a higher density."""
    (line,) = result.already_sparse(0.2, 0.182)
    assert "keeps 20.0% of the weights, and only 18.2% are not zero" in line
    assert result.already_sparse(0.2, 0.2) == []
    # A few weights may be zero by chance.
    assert result.already_sparse(0.2, 0.1999) == []
