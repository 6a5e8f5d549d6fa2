"""A network that compiles quickly, under every name."""

import jax.numpy as jnp
import pytest

from vpns_jax import models
from vpns_jax.models.resnet import ResNet


@pytest.fixture
def small_network(monkeypatch):
    def create(name, *, num_classes=10, dtype=jnp.float32):
        return ResNet((1, 0, 0, 0), "basic", num_classes=num_classes, width=0.25, dtype=dtype)

    monkeypatch.setattr(models, "create", create)
