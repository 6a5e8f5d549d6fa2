"""Overlaps counted by hand."""

import numpy as np
import pytest
from PIL import Image

from vpns_jax.analysis.heatmap import overlap_figure
from vpns_jax.analysis.overlap import Mask, compare, comparisons


def mask(method, seed, *, density=0.5, **layers):
    """A mask written as strings, such as conv="1100"."""
    bits = {name: np.packbits([int(bit) for bit in kept]) for name, kept in layers.items()}
    return Mask(method, density, seed, bits, {name: len(kept) for name, kept in layers.items()})


def test_two_masks():
    # 5 of 12 weights each, of which they share 3: 3 of 7. By chance 25/12 shared; in each layer 4 * 3 / 8 + 1 * 2 / 4.
    first, second = mask("a", 7, conv="11110000", head="1000"), mask("b", 7, conv="01110000", head="0011")
    overlap = compare(first, second)
    assert overlap.jaccard == pytest.approx(3 / 7)
    assert overlap.chance == pytest.approx((25 / 12) / (10 - 25 / 12))
    assert overlap.chance_by_layer == pytest.approx(2 / (10 - 2))
    assert compare(first, first).jaccard == 1


def test_chance_is_what_masks_by_lot_have():
    rng = np.random.default_rng(0)
    n, masks = 100_000, []
    for _ in range(2):
        kept = rng.permutation(n) < n // 10
        masks.append(Mask("random", 0.1, 7, {"conv": np.packbits(kept)}, {"conv": n}))
    seen = compare(*masks)
    # The standard deviation of the number of shared weights, about 28 of 1000, is 0.0015 in the index.
    assert seen.jaccard == pytest.approx(seen.chance, abs=0.006)
    assert seen.chance == seen.chance_by_layer == pytest.approx(0.1 / 1.9)


def test_methods_meet_at_their_seed_and_seeds_within_a_method():
    masks = [mask("a", 7, x="1100"), mask("b", 7, x="1010"), mask("a", 9, x="1100"), mask("b", 9, x="1100")]
    masks.append(mask("a", 7, density=0.25, x="1000"))
    means = {
        (comparison.density, comparison.methods): (comparison.pairs, comparison.overlap.jaccard)
        for comparison in comparisons(masks)
    }
    assert means == {
        (0.5, ("a", "a")): (1, 1.0),
        (0.5, ("a", "b")): (2, pytest.approx((1 / 3 + 1) / 2)),
        (0.5, ("b", "b")): (1, pytest.approx(1 / 3)),
    }


def test_masks_of_two_networks_are_not_compared():
    with pytest.raises(ValueError, match="same network"):
        compare(mask("a", 7, x="1100"), mask("b", 7, x="11001"))


def test_every_pair_has_its_square(tmp_path, drawn):
    compared = comparisons([mask("a", 7, x="1100"), mask("b", 7, x="1010"), mask("a", 9, x="1100")])
    pixels = np.asarray(Image.open(overlap_figure(compared, tmp_path / "overlap.png")).convert("RGB")).reshape(-1, 3)
    axes = drawn[0].axes[0]
    square = axes.images[0].get_array().filled(np.nan)
    # Method b has only one seed, so its seeds are not compared.
    np.testing.assert_allclose(square, [[1, 1 / 3], [1 / 3, np.nan]])
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.33", "0.33"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    # The color of an index of 1 fills one of four squares, that of 1/3 two.
    shades = [axes.images[0].cmap(index, bytes=True)[:3] for index in (1.0, 1 / 3)]
    one, third = (np.sum(np.all(pixels == shade, axis=1)) for shade in shades)
    assert third > 1.5 * one > 1000
