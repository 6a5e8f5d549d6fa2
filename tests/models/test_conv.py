"""The three ways to convolve agree with each other and with a sum worked by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax.models import conv


def test_conv2d_worked_by_hand() -> None:
    image = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    kernel = jnp.array([[1.0, 0.0], [0.0, -1.0]]).reshape(2, 2, 1, 1)
    # Cross-correlation: x[i, j] - x[i + 1, j + 1] = -4 wherever both lie inside.
    np.testing.assert_array_equal(conv.conv2d(image, kernel)[0, :, :, 0], [[-4, -4], [-4, -4]])
    # One zero all round, every second window: corners see one pixel of each pair.
    padded = conv.conv2d(image, kernel, stride=2, padding=1)[0, :, :, 0]
    np.testing.assert_array_equal(padded, [[-1, -3], [-7, -4]])


def test_mean_over_tiles_worked_by_hand() -> None:
    image = jnp.arange(16.0).reshape(1, 4, 4, 1)
    tiles = conv.conv2d(image, jnp.full((2, 2, 1, 1), 0.25), stride=2)[0, :, :, 0]
    np.testing.assert_array_equal(tiles, [[2.5, 4.5], [10.5, 12.5]])


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "padding"),
    [
        (9, 3, 1, 1),
        (9, 3, 2, 1),
        (10, 3, 2, 1),
        (11, 7, 2, 3),
        (8, 1, 1, 0),
        (9, 1, 2, 0),
        (8, 4, 4, 0),
        (9, 4, 4, 0),
    ],
)
def test_value_and_gradients_are_those_of_xla(size: int, kernel_size: int, stride: int, padding: int) -> None:
    rng = np.random.default_rng(size * kernel_size + stride)
    x = rng.standard_normal((2, size, size + 1, 5), np.float32)
    kernel = rng.standard_normal((kernel_size, kernel_size, 5, 6), np.float32)
    shape = jax.eval_shape(lambda: conv.lax_conv2d(x, kernel, stride=stride, padding=padding)).shape
    cotangent = rng.standard_normal(shape, np.float32)

    def both(x: jax.Array, kernel: jax.Array) -> list[tuple[jax.Array, jax.Array, jax.Array]]:
        results = []
        for convolve in (conv.conv2d, conv.lax_conv2d):
            y, pull = jax.vjp(functools.partial(convolve, stride=stride, padding=padding), x, kernel)
            results.append((y, *pull(cotangent)))
        return results

    for ours, xla in zip(*jax.jit(both)(x, kernel), strict=True):
        assert ours.shape == xla.shape
        np.testing.assert_allclose(ours, xla, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "padding", "expected"),
    [
        (16, 3, 1, 1, "dot_general"),  # 256 positions
        (17, 3, 1, 1, "conv_general_dilated"),  # 289 positions
        (64, 1, 2, 0, "dot_general"),
        (64, 16, 16, 0, "dot_general"),
    ],
)
def test_small_images_are_matrix_products_on_cpu(
    size: int, kernel_size: int, stride: int, padding: int, expected: str
) -> None:
    x, kernel = jnp.zeros((1, size, size, 2)), jnp.zeros((kernel_size, kernel_size, 2, 3))
    jaxpr = str(jax.make_jaxpr(lambda: conv.conv2d(x, kernel, stride=stride, padding=padding))())
    assert {name for name in ("dot_general", "conv_general_dilated") if name in jaxpr} == {expected}


def test_accelerators_get_the_real_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jaxpr = str(jax.make_jaxpr(conv.conv2d)(jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 1, 2, 3))))
    assert "conv_general_dilated" in jaxpr


def test_layer_adds_its_bias_and_computes_in_its_dtype() -> None:
    layer = conv.Conv(3, 3, 1, 1, use_bias=True, dtype=jnp.bfloat16)
    x = jnp.ones((1, 4, 4, 2))
    params = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    assert {name: (p.shape, p.dtype.name) for name, p in params.items()} == {
        "kernel": ((3, 3, 2, 3), "float32"),
        "bias": ((3,), "float32"),
    }
    zero = {"kernel": jnp.zeros((3, 3, 2, 3)), "bias": jnp.array([1.0, 2.0, 3.0])}
    y = layer.apply({"params": zero}, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y[0, 0, 0].astype(jnp.float32), [1, 2, 3])
