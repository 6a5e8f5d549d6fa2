"""Multiply-adds by hand from the architectures; they agree with published numbers."""

import flax.linen as nn
import pytest

from tests.training.tiny import SIZE, Tiny
from vpns_jax import models
from vpns_jax.analysis.density import Layer
from vpns_jax.analysis.flops import kernels, multiply_adds


def basic(depths):
    """The 3x3 convolutions: c to c channels at 56^2 pixels; each stage halves the side and doubles the channels."""
    total, c, n = 0, 64, 56
    for stage, depth in enumerate(depths):
        whole = n * n * 9 * c * c
        # At the beginning of a stage, the first convolution and the shortcut have half the input channels.
        total += 2 * depth * whole if stage == 0 else (2 * depth - 1) * whole + whole // 2 + n * n * c // 2 * c
        c, n = 2 * c, n // 2
    return total


def bottleneck(depths):
    """1x1 at the block's input side, 3x3 (which strides) and 1x1 to four times the channels at its output side."""
    total, come, c, n = 0, 64, 64, 56
    for stage, depth in enumerate(depths):
        for block in range(depth):
            side = 2 * n if stage and not block else n
            total += side * side * come * c + n * n * 9 * c * c + n * n * c * 4 * c
            total += 0 if block else n * n * come * 4 * c
            come = 4 * c
        c, n = 2 * c, n // 2
    return total


STEM = 112 * 112 * 7 * 7 * 3 * 64
VGG = (
    224**2 * 9 * (3 * 64 + 64 * 64)
    + 112**2 * 9 * (64 * 128 + 128 * 128)
    + 56**2 * 9 * (128 * 256 + 2 * 256 * 256)
    + 28**2 * 9 * (256 * 512 + 2 * 512 * 512)
    + 14**2 * 9 * 3 * 512 * 512
    + 7 * 7 * 512 * 4096
    + 4096 * 4096
)
# 196 patches; then 196 of them and the class token through 4 projections and an MLP of 8 c^2 weights, 12 times.
VIT = 196 * 16 * 16 * 3 * 768 + 12 * 197 * 12 * 768 * 768

# A stem of 4x4 patches, and 2x2 ones between stages; each block has a depthwise 7x7 kernel and 8 c^2 more weights.
CONVNEXT = 56**2 * 16 * 3 * 96 + sum((56 // 2**s) ** 2 * 4 * 2 * (96 * 2 ** (s - 1)) ** 2 for s in (1, 2, 3))
CONVNEXT += sum(
    depth * (56 // 2**s) ** 2 * (49 * c + 8 * c * c)
    for s, (depth, c) in enumerate(zip((3, 3, 9, 3), (96, 192, 384, 768), strict=True))
)


# The last column has the known sizes: 1.81, 4.09, 15.47, 16.85 and 4.46 billion.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "body", "head", "all_of_it"),
    [
        ("resnet18", STEM + basic((2, 2, 2, 2)), 512 * 1000, 1_814_073_344),
        ("resnet50", STEM + bottleneck((3, 4, 6, 3)), 2048 * 1000, 4_089_184_256),
        ("vgg16", VGG, 4096 * 1000, 15_470_264_320),
        ("vit_b16", VIT, 768 * 1000, 16_848_500_736),
        ("convnext_tiny", CONVNEXT, 768 * 1000, 4_455_531_264),
    ],
)
def test_dense_networks(name, body, head, all_of_it):
    assert body + head == all_of_it
    counted = multiply_adds(kernels(models.create(name), image_size=224), ())
    assert (counted["dense"], counted["dense_without_head"]) == (all_of_it, body)
    assert (counted["masked"], counted["masked_without_head"]) == (all_of_it, body)


def test_a_mask_counts_what_it_keeps_and_what_it_does_not_name_whole():
    # A 2x2 convolution of stride 2 on 8x8 images, 3 to 4 channels: 48 weights at 16 positions. Its head: 4 x 5.
    network_kernels = kernels(Tiny(), image_size=SIZE)
    assert {(kernel.path, kernel.size, kernel.positions) for kernel in network_kernels} == {
        ("conv1/kernel", 48, 16),
        ("head/kernel", 20, 1),
    }
    conv, head = Layer("conv1/kernel", 48, 10), Layer("head/kernel", 20, 3)
    assert multiply_adds(network_kernels, (conv, head)) == {
        "dense": 788,
        "masked": 163,
        "dense_without_head": 768,
        "masked_without_head": 160,
    }
    assert multiply_adds(network_kernels, (conv,))["masked"] == 180


def test_a_layer_that_is_called_twice_counts_twice():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.Dense(3, name="dense")
            return layer(layer(x))

    # Tokens of 3 channels: 9 weights at 4 x 4 positions, twice.
    assert multiply_adds(kernels(Twice(), image_size=4), ())["dense"] == 288


def test_attention_projects_each_token_once():
    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x):
            tokens = x.reshape(x.shape[0], -1, x.shape[-1])
            return nn.MultiHeadDotProductAttention(num_heads=3, qkv_features=6, out_features=5, name="attention")(
                tokens
            )

    # 16 tokens of 3 channels: query, key and value have 18 weights each, the output 30.
    counted = {kernel.path.split("/")[1]: kernel for kernel in kernels(Attention(), image_size=4)}
    assert {name: (kernel.size, kernel.positions) for name, kernel in counted.items()} == {
        "query": (18, 16),
        "key": (18, 16),
        "value": (18, 16),
        "out": (30, 16),
    }


def test_a_transposed_convolution_spreads_each_input():
    class Larger(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.ConvTranspose(5, (2, 2), (2, 2), name="up")(inputs=x)

    # 4 x 4 inputs of 3 channels, each of which 2 x 2 outputs of 5 channels read: 60 products an input.
    assert multiply_adds(kernels(Larger(), image_size=4), ())["dense"] == 16 * 60
