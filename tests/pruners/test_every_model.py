"""What pruners compute can be built for every kind of network, forward over reverse and in float64 too."""

import jax
import jax.numpy as jnp
import pytest

from vpns_jax import models, prompting
from vpns_jax.models.resnet import ResNet
from vpns_jax.models.vgg import VGG
from vpns_jax.models.vit import ViT
from vpns_jax.pruners import scoring, synflow
from vpns_jax.training.network import Network, Subnetwork

SIZE = 32
# Of every module in the registry one that is quick to trace.
MODELS = {
    "basic": ResNet(depths=(1, 1), block="basic", num_classes=5, width=0.1),
    "bottleneck": ResNet(depths=(1, 1), block="bottleneck", num_classes=5, width=0.1, stem="small"),
    "vgg": VGG(stages=((1, 8), (2, 8)), batch_norm=False, num_classes=5, width=0.1, dtype=jnp.dtype("bfloat16")),
    "vgg_bn": VGG(stages=((1, 8), (2, 8)), batch_norm=True, num_classes=5, width=0.1),
    "vit": ViT(patch=16, features=64, depth=2, num_classes=5, dropout=0.1),
}


def test_every_module_is_tested():
    known = {type(model) for model in MODELS.values()}
    assert {entry.module for name, entry in models.registry.ENTRIES.items() if name != "tiny"} == known


@pytest.mark.parametrize("name", MODELS)
def test_gradients_hessian_products_and_flow(name):
    model, prompt = MODELS[name], prompting.create("pad", canvas_size=SIZE, pad_size=4)
    network = Network(model, prompt, None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    kernels = models.prunable(variables["params"])
    source = Subnetwork(variables["params"], {}, variables.get("batch_stats", {}), prompt.init(), jnp.arange(3))
    batch = (jnp.zeros((2, SIZE, SIZE, 3), jnp.uint8), jnp.zeros(2, jnp.int32))
    product = scoring._add_hessian_vector.lower(
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
