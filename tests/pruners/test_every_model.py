"""What pruners compute can be built for every kind of network, forward over reverse and in float64 too."""

import jax
import jax.numpy as jnp
import pytest

from vpns_jax import models, prompting
from vpns_jax.pruners import by_gradient, synflow
from vpns_jax.training.forward import Network
from vpns_jax.training.state import Subnetwork

SIZE = 32
OPTIONS = {
    "resnet18": {"width": 0.1},
    "resnet50": {"width": 0.1, "stem": "small"},
    "vgg16": {"width": 0.1, "dtype": "bfloat16"},
    "vgg16_bn": {"width": 0.1},
    "vit_ti32": {"dropout": 0.1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_hessian_products_and_flow(name):
    model = models.create(name, num_classes=5, **OPTIONS[name])
    prompt = prompting.create("pad", canvas_size=SIZE, pad_size=4)
    network = Network(model, prompt, None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    kernels = models.prunable(variables["params"])
    source = Subnetwork(variables["params"], {}, variables.get("batch_stats", {}), prompt.init(), jnp.arange(3))
    batch = (jnp.zeros((2, SIZE, SIZE, 3), jnp.uint8), jnp.zeros(2, jnp.int32))
    product = by_gradient._add_hessian_vector.lower(
        network, True, 200.0, kernels, source, kernels, kernels, batch, jax.random.key(0)
    )
    assert _shapes(product.out_info) == _shapes(kernels)
    mask = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, bool), kernels)
    with jax.enable_x64(True):
        flow = synflow._flow.lower(model.clone(dtype="float64"), SIZE, source.weights, source.batch_stats, mask)
    assert _shapes(flow.out_info) == _shapes(kernels)
    assert "f64" in flow.as_text()


def _shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)
