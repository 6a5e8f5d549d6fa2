"""A network that compiles quickly, under every name."""

import jax.numpy as jnp
import pytest

from tests.training import tiny
from vpns_jax import models


@pytest.fixture
def tiny_network(monkeypatch):
    def create(name, *, num_classes=10, dtype=jnp.float32):
        return tiny.Tiny(num_classes)

    monkeypatch.setattr(models, "create", create)
