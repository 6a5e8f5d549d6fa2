"""A device's memory and communication, compared with sums by hand."""

from benchmarks import scale

# 2**15 prunable weights, which are split, and a bias, which is neither prunable nor split.
LEAVES = [scale.Leaf((256, 128), prunable=True), scale.Leaf((128,), prunable=False)]


def test_prune_on_two_by_two():
    total = scale.count(LEAVES, "prune", data=2, fsdp=2)
    # The weight, score and two moments of half the kernel; the whole bias.
    assert total.kept == 16 * 32768 // 2 + 4 * 128
    # Masked weights, the scores' gradients and half of the mask; the bias is not learned.
    assert total.temporary == 8 * 32768 + 32768 // 2 + 4 * 128
    # A gather and a scatter send half of the kernel each; the sum over the other axis sends twice a quarter.
    assert total.sent == 2 * 4 * 16384 + 4 * 16384


def test_retrain_on_one_axis_sums_every_gradient_twice_around_the_ring():
    total = scale.count(LEAVES, "retrain, SGD", data=4, fsdp=1)
    # Weights and momentum; a bit of the mask.
    assert total.kept == 8 * 32768 + 32768 // 8 + 8 * 128
    assert total.sent == 2 * 4 * (32768 + 128) * 3 // 4


def test_the_networks_are_counted_as_they_are():
    leaves = scale.parameters("vit_ti16", 224)
    # As docs/models.md has it.
    assert sum(leaf.size for leaf in leaves) == 5_717_416
