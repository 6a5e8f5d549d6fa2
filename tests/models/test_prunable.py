"""The prunable parameters, and globs that choose among them."""

import jax
import jax.numpy as jnp
import pytest

from vpns_jax import models
from vpns_jax.errors import UserError
from vpns_jax.trees import flatten

LEAF = jnp.zeros(1)
PARAMS = {
    "conv1": {"kernel": LEAF, "bias": LEAF},
    "bn1": {"scale": LEAF, "bias": LEAF},
    "layer1_0": {"conv1": {"kernel": LEAF}, "bn1": {"scale": LEAF}},
    "head": {"kernel": LEAF, "bias": LEAF},
}


def test_only_kernels_and_no_empty_branches() -> None:
    assert models.prunable(PARAMS) == {
        "conv1": {"kernel": LEAF},
        "layer1_0": {"conv1": {"kernel": LEAF}},
        "head": {"kernel": LEAF},
    }


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["*conv1/kernel"], [], ["conv1/kernel", "layer1_0/conv1/kernel"]),
        (["conv1", "head"], [], ["conv1/kernel", "head/kernel"]),
        ([], ["head"], ["conv1/kernel", "layer1_0/conv1/kernel"]),
        (["*"], ["layer1_*", "head/kernel"], ["conv1/kernel"]),
    ],
)
def test_include_and_exclude(include: list[str], exclude: list[str], expected: list[str]) -> None:
    assert list(flatten(models.prunable(PARAMS, include=include, exclude=exclude))) == expected


@pytest.mark.parametrize("arguments", [{"include": ["fc*"]}, {"exclude": ["bn1"]}])
def test_a_pattern_that_matches_no_kernel_is_refused(arguments: dict[str, list[str]]) -> None:
    with pytest.raises(UserError, match="matches nothing; available: conv1/kernel, layer1_0/conv1/kernel, head"):
        models.prunable(PARAMS, **arguments)


def test_nothing_left_and_a_bare_string_are_refused() -> None:
    with pytest.raises(UserError, match="no kernel is left"):
        models.prunable(PARAMS, exclude=["*"])
    with pytest.raises(UserError, match="sequence of patterns"):
        models.prunable(PARAMS, exclude="head")


def test_works_on_shapes() -> None:
    model = models.create("resnet18")
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    kernels = flatten(models.prunable(shapes))
    assert len(kernels) == 21
    assert kernels["head/kernel"].shape == (512, 1000)
    assert kernels["conv1/kernel"].shape == (7, 7, 3, 64)
