"""Accuracy and label mapping over whole splits: every image counts once, for any batch size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import tiny
from vpns_jax.prompting import label_mapping
from vpns_jax.training.evaluation import estimate_mapping, evaluate
from vpns_jax.training.metrics import Evaluated
from vpns_jax.training.network import predict


@pytest.fixture(scope="module")
def trained():
    """Makes a network whose prompt is not zero, so that prompted and plain results differ."""
    stage, state = tiny.begin("weights")
    network = stage.subnetwork(state)
    prompt = jax.tree.map(lambda x: x + 0.6, network.prompt)
    return stage.network, dataclasses.replace(network, prompt=prompt)


# 24 images, with batch sizes that divide 24, that do not, and that are larger.
@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [8, 7, 40])
def test_every_image_counts_once(trained, batch_size):
    network, subnetwork = trained
    data = tiny.split()
    seen = evaluate(network, subnetwork, data, batch_size=batch_size, confusion=True)
    for prompted, metrics in ((False, seen.plain), (True, seen.prompted)):
        source_logits = np.asarray(predict(network, subnetwork, data.images, prompted=prompted))
        counts = np.zeros((tiny.CLASSES, tiny.CLASSES), int)
        logits, labels = source_logits[:, [4, 0, 2]], np.asarray(data.labels)
        np.add.at(counts, (labels, logits.argmax(1)), 1)
        np.testing.assert_array_equal(metrics["confusion"], counts)
        right = logits.argmax(1) == labels
        assert float(metrics["accuracy"]) == np.float32(right.sum()) / np.float32(tiny.IMAGES)
        whole = jax.jit(Evaluated.of)(logits=logits, labels=labels, mask=np.ones(tiny.IMAGES))
        for name, value in whole.compute().items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
            assert seen.both(name)["prompted" if prompted else "plain"] == metrics[name]
    assert float(seen.plain["loss"]) != float(seen.prompted["loss"])


def test_a_network_without_a_prompt_is_evaluated_plain_only(trained):
    _, subnetwork = trained
    seen = evaluate(tiny.network("none"), dataclasses.replace(subnetwork, prompt={}), tiny.split(), batch_size=8)
    assert seen.prompted is None
    assert seen.both("accuracy")["prompted"] is None
    assert "confusion" not in seen.plain


@pytest.mark.parametrize("batch_size", [8, 7])
def test_the_mapping_is_estimated_on_prompted_images(trained, batch_size):
    network, subnetwork = trained
    data = tiny.split()
    predicted = np.asarray(predict(network, subnetwork, data.images, prompted=True)).argmax(1)
    counts = np.zeros((tiny.SOURCE_CLASSES, tiny.CLASSES), int)
    np.add.at(counts, (predicted, np.asarray(data.labels)), 1)
    mapping = estimate_mapping(network, subnetwork, data, batch_size=batch_size)
    np.testing.assert_array_equal(mapping, label_mapping.frequency(counts))
    assert mapping.dtype == jnp.int32
