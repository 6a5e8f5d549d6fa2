"""All ways to convolve agree with each other and with sums by hand."""

import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from vpns_jax.models.cpu import conv, winograd


def test_conv2d_worked_by_hand() -> None:
    image = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
    kernel = np.array([[1, 0], [0, -1]], np.float32).reshape(2, 2, 1, 1)
    # Cross-correlation: x[i, j] - x[i + 1, j + 1] = -4 where both are inside the image.
    np.testing.assert_array_equal(np.asarray(conv.conv2d(image, kernel))[0, :, :, 0], [[-4, -4], [-4, -4]])
    # Padding 1 and stride 2: at the corners, a window sees one pixel of each pair.
    padded = np.asarray(conv.conv2d(image, kernel, stride=2, padding=1))[0, :, :, 0]
    np.testing.assert_array_equal(padded, [[-1, -3], [-7, -4]])


def test_mean_over_tiles_worked_by_hand() -> None:
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    tiles = np.asarray(conv.conv2d(image, np.full((2, 2, 1, 1), 0.25, np.float32), stride=2))[0, :, :, 0]
    np.testing.assert_array_equal(tiles, [[2.5, 4.5], [10.5, 12.5]])


def values_and_gradients(ways: Iterable[Callable[..., jax.Array]], *arrays: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """The value and both gradients of each way to convolve, in one program."""

    def each(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> list[tuple[jax.Array, ...]]:
        values = [jax.vjp(way, x, kernel) for way in ways]
        return [(y, *pull(cotangent)) for y, pull in values]

    return jax.device_get(jax.jit(each)(*arrays))


@pytest.mark.slow
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
    ways = [functools.partial(way, stride=stride, padding=padding) for way in (conv.conv2d, conv.lax_conv2d)]
    shape = jax.eval_shape(ways[1], x, kernel).shape
    cotangent = rng.standard_normal(shape, np.float32)

    for ours, xla in zip(*values_and_gradients(ways, x, kernel, cotangent), strict=True):
        assert ours.shape == xla.shape
        np.testing.assert_allclose(ours, xla, rtol=1e-5, atol=1e-4)


def test_winograds_planes_worked_by_hand() -> None:
    # For a kernel of ones: the rows of G sum to 1, 3/2, 1/2 and 1.
    planes = jax.jit(winograd.kernel_planes)(np.ones((3, 3, 1, 1), np.float32))
    sums = np.array([1, 1.5, 0.5, 1])
    np.testing.assert_array_equal(np.squeeze(np.array(planes)), np.outer(sums, sums))


# Even and odd sides, an odd batch, one tile and less than one.
@pytest.mark.slow
@pytest.mark.parametrize(("h", "w", "padding"), [(8, 8, 1), (7, 9, 1), (2, 3, 1), (3, 3, 0), (5, 4, 2)])
def test_winograd_is_xlas_convolution(h: int, w: int, padding: int) -> None:
    rng = np.random.default_rng(h * w)
    x, kernel = rng.standard_normal((3, h, w, 24), np.float32), rng.standard_normal((3, 3, 24, 32), np.float32)
    pads = ((padding, padding), (padding, padding))
    cotangent = rng.standard_normal((3, h + 2 * padding - 2, w + 2 * padding - 2, 32), np.float32)

    ways = (
        functools.partial(conv.winograd_conv2d, pads=pads),
        functools.partial(conv.lax_conv2d, stride=1, padding=padding),
    )
    for actual, expected in zip(*values_and_gradients(ways, x, kernel, cotangent), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-4)


# A chunk may hold two images.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding", "room"), [(3, 1, 1, 150_000), (3, 2, 1, 80_000), (7, 2, 3, 400_000)]
)
def test_chunks_of_the_batch_change_nothing(
    kernel_size: int, stride: int, padding: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value, the gradients, and a Hessian-vector product, which uses forward and reverse mode."""
    rng = np.random.default_rng(kernel_size)
    x, kernel = rng.standard_normal((6, 12, 12, 24), np.float32), rng.standard_normal((kernel_size,) * 2 + (24, 24))

    def products(convolve: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, ...]:
        def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(convolve(x, kernel, stride=stride, padding=padding)))

        gradient = jax.grad(loss, argnums=(0, 1))
        return loss(x, kernel), *gradient(x, kernel), *jax.jvp(gradient, (x, kernel), (x, kernel))[1]

    arguments = (x, kernel.astype(np.float32) / 24)
    whole = jax.jit(functools.partial(products, conv.lax_conv2d))(*arguments)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for name in ("IM2COL_BYTES", "LARGE_BYTES", "WINOGRAD_BYTES"):
        monkeypatch.setattr(conv, name, room)
    chunked = jax.jit(functools.partial(products, conv.conv2d))
    assert "scan[" in str(
        jax.make_jaxpr(lambda x, kernel: conv.conv2d(x, kernel, stride=stride, padding=padding))(*arguments)
    )
    for actual, expected in zip(chunked(*arguments), whole, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "stride", "side"), [(3, 1, 12), (3, 2, 6), (2, 2, 7)])
def test_no_images_give_no_images(size: int, stride: int, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    x, kernel = jnp.zeros((0, 12, 12, 32)), jnp.zeros((size, size, 32, 32))
    convolve = functools.partial(conv.conv2d, stride=stride, padding=size // 2)
    assert jax.eval_shape(convolve, x, kernel).shape == (0, side, side, 32)


def test_layers_of_one_shape_are_traced_once() -> None:
    x, kernel = jnp.zeros((1, 4, 4, 8)), jnp.zeros((3, 3, 8, 8))

    def stack(x: jax.Array) -> jax.Array:
        return conv.conv2d(conv.conv2d(x, kernel, padding=1), kernel, padding=1)

    first, second = (equation.params["jaxpr"] for equation in jax.make_jaxpr(stack)(x).eqns)
    assert first is second


def test_taps_that_meet_nothing_but_zeros_are_cropped() -> None:
    def cropped(size: int, taps: int, stride: int, padding: int) -> tuple[list[float], tuple[int, int]]:
        kernel = np.arange(taps, dtype=np.float32).reshape(taps, 1, 1, 1)
        kernel, pads = conv.crop_taps(kernel, (size, 1), stride=stride, padding=padding)
        return kernel.ravel().tolist(), pads[0]

    assert cropped(1, 3, 1, 1) == ([1], (0, 0))
    assert cropped(2, 3, 1, 1) == ([0, 1, 2], (1, 1))
    # A single window, whose first tap is on the padding.
    assert cropped(2, 3, 2, 1) == ([1, 2], (0, 0))
    assert cropped(2, 7, 2, 3) == ([3, 4], (0, 0))
    assert cropped(3, 7, 2, 3) == ([1, 2, 3, 4, 5], (2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(("kernel_size", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (7, 2, 3), (5, 1, 2)])
def test_images_smaller_than_their_kernels(size: int, kernel_size: int, stride: int, padding: int) -> None:
    rng = np.random.default_rng(size)
    x = rng.standard_normal((2, size, size, 4), np.float32)
    kernel = rng.standard_normal((kernel_size, kernel_size, 4, 5), np.float32)

    ways = [functools.partial(way, stride=stride, padding=padding) for way in (conv.conv2d, conv.lax_conv2d)]
    shape = jax.eval_shape(ways[1], x, kernel).shape
    cotangent = np.cos(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)
    for actual, expected in zip(*values_and_gradients(ways, x, kernel, cotangent), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "kernel_size", "stride", "dtype", "products"),
    [
        (24, 3, 1, jnp.float32, 16),  # Winograd's algorithm.
        (23, 3, 1, jnp.float32, 1),
        (24, 3, 2, jnp.float32, 1),
        (24, 5, 1, jnp.float32, 1),
        (24, 3, 1, jnp.bfloat16, 1),  # In bfloat16, Winograd's sums and differences would be rounded.
        (24, 1, 2, jnp.float32, 1),
        (24, 8, 8, jnp.float32, 1),
    ],
)
def test_convolutions_are_matrix_products_on_cpu(
    channels: int, kernel_size: int, stride: int, dtype: jnp.dtype, products: int
) -> None:
    x, kernel = jnp.zeros((1, 16, 16, channels), dtype), jnp.zeros((kernel_size, kernel_size, channels, 24), dtype)
    jaxpr = str(jax.make_jaxpr(lambda: conv.conv2d(x, kernel, stride=stride, padding=kernel_size % 2))())
    assert jaxpr.count("dot_general[") == products
    assert "conv_general_dilated" not in jaxpr


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_accelerators_get_the_real_convolution(platform: str) -> None:
    """On any machine that compiles for them."""
    x, kernel = jnp.zeros((1, 16, 16, 24)), jnp.zeros((3, 3, 24, 24))
    # Traced for this machine first; the cached trace must not be used for the other one.
    for mesh, convolutions in ((AbstractMesh((), ()), 0), (mesh_of(platform), 1), (AbstractMesh((), ()), 0)):
        with jax.sharding.use_abstract_mesh(mesh):
            jaxpr = str(jax.make_jaxpr(conv.conv2d)(x, kernel))
        assert jaxpr.count("conv_general_dilated[") == convolutions


def mesh_of(platform: str) -> AbstractMesh:
    return AbstractMesh((), (), abstract_device=AbstractDevice("a device", 1, platform))


def test_layer_adds_its_bias_and_computes_in_its_dtype() -> None:
    layer = conv.Conv(3, 3, 1, 1, use_bias=True, dtype=jnp.bfloat16)
    x = np.ones((1, 4, 4, 2), np.float32)
    params = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    assert {name: (p.shape, p.dtype.name) for name, p in params.items()} == {
        "kernel": ((3, 3, 2, 3), "float32"),
        "bias": ((3,), "float32"),
    }
    zero = {"kernel": np.zeros((3, 3, 2, 3), np.float32), "bias": np.array([1, 2, 3], np.float32)}
    y = jax.jit(layer.apply)({"params": zero}, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(y)[0, 0, 0].astype(np.float32), [1, 2, 3])


@pytest.mark.parametrize(("side", "products"), [(4, 1), (32, 16)])
def test_winograds_sixteen_products_are_for_layers_that_multiply_much(side: int, products: int) -> None:
    # 147 thousand and 9 million multiply-adds an image.
    x, kernel = jnp.zeros((2, side, side, 32)), jnp.zeros((3, 3, 32, 32))
    program = str(jax.make_jaxpr(functools.partial(conv.conv2d, padding=1))(x, kernel))
    assert program.count("dot_general[") == products
