"""Densities of a three-layer network, counted by hand."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax.analysis.density import DensityReport, Layer, density_report

# stem keeps 1 of 2, block 0 of 4, head 3 of 4: 4 of 10 in all, 1 of 6 without the head.
MASK = {
    "block": {"conv": {"kernel": np.zeros((2, 2), bool)}},
    "head": {"kernel": np.array([[True, True], [True, False]])},
    "stem": {"kernel": np.array([True, False])},
}


def test_counts_worked_by_hand():
    report = density_report(MASK)
    assert report.layers == (
        Layer("stem/kernel", 2, 1),
        Layer("block/conv/kernel", 4, 0),
        Layer("head/kernel", 4, 3),
    )
    assert (report.size, report.kept) == (10, 4)
    assert report.density == pytest.approx(0.4)
    assert report.density_without_head == pytest.approx(1 / 6)
    assert report.collapsed == ("block/conv/kernel",)
    assert report.layers[2].density == pytest.approx(0.75)


def test_jax_and_numpy_masks_agree():
    assert density_report(jax.tree.map(jnp.asarray, MASK)) == density_report(MASK)


def test_a_sharded_mask_counts_whole():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    assert density_report(jax.device_put(MASK, spread)) == density_report(MASK)


def test_a_mask_of_ones_is_dense():
    report = density_report(jax.tree.map(np.ones_like, MASK))
    assert report.density == report.density_without_head == 1.0
    assert report.collapsed == ()


def test_layers_stand_in_natural_order_with_the_head_last():
    keep = np.ones(1, bool)
    mask = {"fc": {"kernel": keep}, **dict.fromkeys(("layer10", "layer2", "zeta", "stem_conv", "1x"), keep)}
    paths = [layer.path for layer in density_report(mask, head="fc").layers]
    assert paths == ["stem_conv", "1x", "layer2", "layer10", "zeta", "fc/kernel"]


def test_without_a_body_its_density_is_nan():
    assert math.isnan(density_report({"head": np.ones(3, bool)}).density_without_head)


def test_json_round_trip():
    report = density_report(MASK)
    assert DensityReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_mask_that_is_not_boolean_is_refused():
    with pytest.raises(TypeError, match=r"mask leaf 'a/kernel' is float32, expected bool"):
        density_report({"a": {"kernel": np.ones(2, np.float32)}})
