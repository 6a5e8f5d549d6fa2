"""What is said of a finished cell."""

from vpns_jax.experiment import result


def test_a_mask_over_weights_that_were_zero_already_is_said():
    """20% kept of which a tenth is zero, as re-pruning a sparse network at a higher density has it."""
    (line,) = result.already_sparse(0.2, 0.182)
    assert "keeps 20.0% of the weights, and only 18.2% are not zero" in line
    assert result.already_sparse(0.2, 0.2) == []
    # A few weights are zero by chance.
    assert result.already_sparse(0.2, 0.1999) == []
