"""Depthwise convolution: its value and its derivatives are those of XLA's convolution."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from vpns_jax.models.cpu import depthwise


def test_worked_by_hand() -> None:
    image = jnp.arange(1.0, 9.0).reshape(1, 2, 2, 2)
    # Of the first channel each pixel's left neighbor is taken, and of the second twice its upper neighbor.
    kernel = jnp.zeros((3, 3, 1, 2)).at[1, 0, 0, 0].set(1).at[0, 1, 0, 1].set(2)
    y = depthwise.depthwise_conv2d(image, kernel, padding=1)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 1], [0, 5]])
    np.testing.assert_array_equal(y[0, :, :, 1], [[0, 0], [4, 8]])


# The second image is smaller than the kernel.
@pytest.mark.slow
@pytest.mark.parametrize(("h", "w"), [(5, 6), (2, 1)])
def test_value_gradients_and_hessian_product_are_those_of_xla(h: int, w: int) -> None:
    rng = np.random.default_rng(h)
    arguments = rng.standard_normal((2, h, w, 3), np.float32), rng.standard_normal((5, 5, 1, 3), np.float32) / 5

    @functools.partial(jax.jit, static_argnums=0)
    def products(convolve: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, ...]:
        def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(convolve(x, kernel, padding=2)))

        gradient = jax.grad(loss, argnums=(0, 1))
        return convolve(x, kernel, padding=2), *gradient(x, kernel), *jax.jvp(gradient, (x, kernel), (x, kernel))[1]

    ours, xla = (products(f, *arguments) for f in (depthwise.depthwise_conv2d, depthwise.lax_depthwise_conv2d))
    for actual, expected in zip(ours, xla, strict=True):
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", 0), ("tpu", 1), ("gpu", 1)])
def test_accelerators_get_the_real_convolution(platform: str, convolutions: int) -> None:
    layer = depthwise.DepthwiseConv(3, 1, dtype=jnp.bfloat16)
    x = jnp.zeros((1, 4, 4, 8))
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=AbstractDevice("a device", 1, platform))):
        jaxpr = str(jax.make_jaxpr(layer.init_with_output)(jax.random.key(0), x))
    assert jaxpr.count("conv_general_dilated[") == convolutions
