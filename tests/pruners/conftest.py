import jax
import pytest

from tests.pruners import cells


@pytest.fixture(autouse=True)
def _world(monkeypatch):
    # These tests spend nearly all of their time compiling.
    jax.config.update("jax_disable_most_optimizations", True)
    with cells.world(monkeypatch):
        yield
    jax.config.update("jax_disable_most_optimizations", False)
