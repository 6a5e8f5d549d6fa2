"""Networks as programs of JAX."""

import jax
import numpy as np
import pytest
from jax import export

from tests.deploy import families
from vpns_jax import deploy
from vpns_jax.deploy import verifying


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    families.register(monkeypatch)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.slow
def test_a_program_takes_any_number_of_images_on_any_platform(tmp_path):
    classifier = families.classifier("small_basic", prompt="expand")
    path = tmp_path / "a.stablehlo"
    deploy.export(classifier, path, format="stablehlo", platforms="tpu,cuda")
    # Nothing of this library is needed to run it.
    program = export.deserialize(bytearray(path.read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    images = families.images(classifier, 5)
    answers, expected = jax.jit(program.call)(images), verifying.logits(classifier, images)
    np.testing.assert_allclose(answers["logits"], expected, atol=1e-5 * expected.std())
    np.testing.assert_allclose(answers["probabilities"], jax.nn.softmax(expected), atol=1e-6)
    # Real convolutions, not the matrix products that a CPU computes them by; each device has a branch of its own.
    code = program.mlir_module()
    assert code.count("stablehlo.convolution") == 3 * 6
    assert code.count("stablehlo.dot_general") == 3 * 1
