import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _as_users_write():
    """Networks of others let a vector meet an array of more axes, which our own code may not."""
    with jax.numpy_rank_promotion("allow"):
        yield
