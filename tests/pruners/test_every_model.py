"""The computations of pruners can be traced for every kind of network, also forward over reverse and in float64."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax import models, prompting, sparsity
from vpns_jax.models.convnext import ConvNeXt
from vpns_jax.models.deit import DeiT
from vpns_jax.models.resnet import ResNet
from vpns_jax.models.vgg import VGG
from vpns_jax.models.vit import ViT
from vpns_jax.pruners.any_model import mean_gradient, mean_hessian_vector
from vpns_jax.pruners.flow import synaptic_flow
from vpns_jax.pruners.methods import scoring, synflow
from vpns_jax.training.network import Network, Subnetwork
from vpns_jax.training.passes import PROTOCOLS

pytestmark = pytest.mark.slow

SIZE = 32
# For each kind of module, a network that is quick to trace.
MODELS = {
    "basic": ResNet(depths=(1, 1), block="basic", num_classes=5, width=0.1),
    "bottleneck": ResNet(depths=(1,), block="bottleneck", num_classes=5, width=0.1, stem="small"),
    "vgg": VGG(stages=((1, 8), (2, 8)), batch_norm=False, num_classes=5, width=0.1, dtype=jnp.dtype("bfloat16")),
    "vgg_bn": VGG(stages=((1, 8), (1, 8)), batch_norm=True, num_classes=5, width=0.1),
    "vit": ViT(patch=16, features=64, depth=2, num_classes=5, dropout=0.1),
    "convnext": ConvNeXt(depths=(1,), num_classes=5, width=0.1),
}


def test_every_module_is_tested():
    known = {type(model) for model in MODELS.values()}
    modules = {entry.module for name, entry in models.registry.ENTRIES.items() if name != "tiny"}
    # A DeiT is a ViT with one more token and one more linear layer.
    assert modules - {DeiT} == known


@pytest.fixture(params=MODELS)
def network(request):
    prompt = prompting.create("pad", canvas_size=SIZE, pad_size=4)
    return Network(MODELS[request.param], prompt, None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def source_of(network, variables):
    return Subnetwork(variables["params"], {}, variables.get("batch_stats", {}), network.prompt.init(), jnp.arange(3))


def test_gradients_and_hessian_products(network):
    """Traces SNIP and GraSP with a stand-in for the problem."""
    images = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.uint8)
    batch = (images, jax.ShapeDtypeStruct((2,), jnp.int32))
    variables = jax.eval_shape(network.model.init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))

    def products(variables, batch):
        kernels = models.prunable(variables["params"])
        problem = SimpleNamespace(
            network=network,
            scored=kernels,
            pattern=sparsity.Pattern(),
            options=SimpleNamespace(batches=1),
            prune=SimpleNamespace(batch_norm="update"),
            preparation=PROTOCOLS["paper"][0],
            batches=lambda count: [(batch, jax.random.key(0))] * count,
        )
        source = source_of(network, variables)
        on = list(scoring.task_batches(problem, source, temperature=200.0))
        fixed = scoring.task_loss(problem), source.weights, kernels
        gradient = mean_gradient(*fixed, on, problem.pattern)
        return gradient, mean_hessian_vector(*fixed, gradient, on, problem.pattern)

    kernels = shapes(models.prunable(variables["params"]))
    assert [shapes(tree) for tree in jax.eval_shape(products, variables, batch)] == [kernels, kernels]


# `test_synflow` tests the flow through the other layers.
@pytest.mark.parametrize("network", ["basic", "bottleneck", "vgg_bn"], indirect=True)
def test_flow(network):
    variables = jax.eval_shape(network.model.init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    # `jnp.asarray` would compile a program for each shape.
    variables = jax.device_put(jax.tree.map(lambda x: np.full(x.shape, 0.5, x.dtype), variables))
    kernels = models.prunable(variables["params"])
    source = source_of(network, variables)
    inputs = (jnp.ones((1, SIZE, SIZE, 3)), source.batch_stats)
    flow = synaptic_flow(synflow.in_double(network.model), source.weights, kernels, inputs, sparsity.Pattern())
    assert shapes(flow) == shapes(kernels)
    # Shares of the largest score; the scores themselves would overflow float32.
    assert max(np.asarray(leaf).max() for leaf in jax.tree.leaves(flow)) == 1


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)
