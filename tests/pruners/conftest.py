import jax
import pytest

from tests.pruners import cells


@pytest.fixture(autouse=True)
def _world(monkeypatch):
    # Compiling is nearly all of the time these tests take.
    jax.config.update("jax_disable_most_optimizations", True)
    with cells.world(monkeypatch):
        yield
    jax.config.update("jax_disable_most_optimizations", False)
