"""All networks by name. Facts about each entry stand here; a test fails for an entry without them."""

import functools
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax import models
from vpns_jax.errors import UserError
from vpns_jax.models import initializing, layouts
from vpns_jax.models.convnext import ConvNeXt
from vpns_jax.models.registry import ALIASES, ENTRIES, NOT_IN_TIMM
from vpns_jax.models.resnet import ResNet
from vpns_jax.models.vgg import VGG
from vpns_jax.models.vit import ViT
from vpns_jax.trees import flatten, unflatten

# Parameters and kernels of each network at 224 px and 1000 classes. The counts are those torchvision and
# timm publish (vit_ti32, which nobody published, by hand: vit_ti16's, 3 * 192 * (32**2 - 16**2) more for the
# patches and 192 * (14**2 - 7**2) less for the positions; resnet10: resnet18 without the second block of each stage,
# which has 2 * 9 * c**2 + 4 * c parameters for c channels).
FACTS = {
    "resnet10": (11_689_512 - sum(18 * c**2 + 4 * c for c in (64, 128, 256, 512)), 13),
    "resnet18": (11_689_512, 21),
    "resnet34": (21_797_672, 37),
    "resnet50": (25_557_032, 54),
    "vgg16": (138_357_544, 16),
    "vgg16_bn": (138_365_992, 16),
    "vit_ti16": (5_717_416, 74),
    "vit_ti32": (5_717_416 + 442_368 - 28_224, 74),
    "vit_s16": (22_050_664, 74),
    "vit_s32": (22_878_952, 74),
    "vit_b16": (86_567_656, 74),
    "vit_b32": (88_224_232, 74),
    "vit_l16": (304_326_632, 146),
    "vit_l32": (306_535_400, 146),
    "deit_ti16": (5_717_416, 74),
    "deit_s16": (22_050_664, 74),
    "deit_b16": (86_567_656, 74),
    "deit_ti16_distilled": (5_910_800, 75),
    "deit_s16_distilled": (22_436_432, 75),
    "deit_b16_distilled": (87_338_192, 75),
    "convnext_tiny": (28_589_128, 59),
}
# Of some networks timm's number of parameters, and a digest of the names and shapes of its tensors.
OF_TIMM = json.loads((Path(__file__).parents[1] / "golden/timm.json").read_text())["full"]

# Networks without published weights.
UNPUBLISHED = ("resnet10", "vit_ti32")


def traced(name: str, size: int = 224, **options: Any) -> Any:
    """(logits, variables) of one image, as shapes."""
    return traced_model(models.create(name, **options), size)


# By the module, because some names have the same one.
@functools.cache
def traced_model(model: Any, size: int) -> Any:
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), images)


def abstract(name: str, size: int = 224, **options: Any) -> Any:
    return traced(name, size, **options)[1]


def drawn(shapes: Any) -> Any:
    """Variables of these shapes, drawn by NumPy: compiling the real initialization takes many seconds."""
    rng = np.random.default_rng(0)

    def draw(path: str, leaf: Any) -> np.ndarray:
        if path.endswith("kernel"):
            fan_in = np.prod(leaf.shape[:-1])
            return (rng.standard_normal(leaf.shape) * np.sqrt(2 / fan_in)).astype(np.float32)
        return np.full(leaf.shape, path.endswith(("scale", "var")), leaf.dtype)

    return unflatten({path: draw(path, leaf) for path, leaf in flatten(shapes).items()})


@pytest.mark.slow
@pytest.mark.parametrize("name", FACTS)
def test_parameters_kernels_head_and_logits(name: str) -> None:
    logits, variables = traced(name, 224)
    params = flatten(variables["params"])
    assert sum(p.size for p in params.values()) == FACTS[name][0]
    assert {p.dtype.name for p in params.values()} == {"float32"}
    kernels = flatten(models.prunable(variables["params"]))
    assert len(kernels) == FACTS[name][1]
    # All matrices and filters are kernels; other parameters have one axis, except for the tokens.
    plural = {path for path, leaf in params.items() if leaf.ndim > 1}
    assert plural - {"cls", "dist", "pos_embedding"} == set(kernels)
    assert variables["params"][models.HEAD]["kernel"].shape[-1] == 1000
    assert (logits.shape, logits.dtype) == ((1, 1000), jnp.float32)
    mean, std = models.normalization(name)
    assert models.normalisation(name) == (mean, std)
    assert len(mean) == len(std) == 3
    facts = OF_TIMM.get(models.timm_name(name))
    if facts:
        assert facts["parameters"] == FACTS[name][0]
        layout = layouts.TIMM[type(models.create(name))]
        rules = layout({path: leaf.shape for path, leaf in flatten(variables).items()})
        theirs = sorted((rule.name, list(rule.fold)) for rule in rules)
        assert hashlib.sha256(json.dumps(theirs).encode()).hexdigest()[:16] == facts["digest"]


def test_timms_facts_are_compared() -> None:
    assert {ALIASES[name] for name in OF_TIMM} == {name for name in FACTS if name.startswith(("deit", "convnext"))}


def test_initialization_has_the_spread_that_its_scheme_says() -> None:
    # Wide enough for the spread of its head to be seen, with one block of four.
    model = ResNet(depths=(1,), block="basic", num_classes=100, width=1 / 4)
    images = jnp.zeros((1, 32, 32, 3))
    init = jax.jit(lambda key: [model.init(key, images)["params"][m]["kernel"] for m in ("conv1", "head")])
    conv, head = jax.device_get(init(jax.random.key(0)))
    # He: variance 2 / (7 * 7 * 16); torch's linear layers: uniform within 1 / sqrt(16).
    np.testing.assert_allclose(conv.std(), np.sqrt(2 / (49 * 16)), rtol=0.05)
    np.testing.assert_allclose(np.abs(head).max(), 1 / np.sqrt(16), rtol=0.01)


def test_timms_names_are_known_too() -> None:
    assert set(models.accepted_names()) == set(ALIASES) > set(models.names())
    for theirs, ours in ALIASES.items():
        assert models.create(theirs) == models.create(ours)
        # timm's name contains the image size and patch size, and the default weights have that name.
        if theirs != ours:
            assert f"/{theirs}." in models.default_source(ours)
    with pytest.raises(UserError, match="unknown model 'vit_huge_patch14_224'; known: resnet10"):
        models.create("vit_huge_patch14_224")


def test_which_networks_timm_lacks() -> None:
    """timm has other names for all ViTs, and no weights are published of a network that it lacks."""
    without = {name for name, entry in ENTRIES.items() if entry.source is None}
    unnamed = {name for name in models.names() if name.startswith(("vit", "deit")) and models.timm_name(name) == name}
    assert unnamed <= NOT_IN_TIMM == without


def test_every_entry_has_facts() -> None:
    assert set(FACTS) == set(models.names())


@pytest.mark.parametrize("name", FACTS)
def test_default_source(name: str) -> None:
    if name in UNPUBLISHED:
        with pytest.raises(UserError, match=f"{name} has no published weights"):
            models.default_source(name)
    else:
        assert models.default_source(name).startswith("hf://timm/")
        assert models.default_source(name) == ENTRIES[name].source


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"name": "resnet19"}, "unknown model 'resnet19'; known: resnet10, resnet18"),
        ({"name": "vit_b16", "width": 2.0}, "unknown option of vit_b16 'width'; known: dropout, dtype"),
        ({"name": "convnext_tiny", "dropout": 0.1}, "unknown option of convnext_tiny 'dropout'; known: width, dtype"),
        ({"name": "resnet18", "depths": (1,)}, "unknown option of resnet18 'depths'; known: width, stem, dtype"),
        ({"name": "resnet18", "stem": "tiny"}, "stem must be 'imagenet' or 'small', got 'tiny'"),
        ({"name": "resnet18", "width": 0}, "width must be a number from 1/64 to 16: .*, got 0"),
        ({"name": "vgg16", "dropout": 1}, r"dropout must be a number in \[0, 1\), got 1"),
        ({"name": "vgg16", "dtype": "int8"}, "dtype must be one of float32, bfloat16, float16"),
        ({"name": "vgg16", "dtype": "float33"}, "dtype must be one of float32, bfloat16, float16"),
        ({"name": "vgg16", "dtype": "float64"}, "dtype must be one of float32, bfloat16, float16"),
        ({"name": "vgg16", "dtype": "float8_e4m3fn"}, "dtype must be one of float32, bfloat16, float16"),
        ({"name": "vgg16", "dtype": ("float32",)}, "dtype must be one of float32, bfloat16, float16"),
        ({"name": "resnet18", "width": 1e6}, "width must be a number from 1/64 to 16: .*, got 1000000.0"),
        ({"name": "resnet18", "width": 1e-300}, "width must be a number from 1/64 to 16: .*, got 1e-300"),
        ({"name": "resnet18", "width": float("inf")}, "width must be a number from 1/64 to 16: .*, got inf"),
        ({"name": "resnet18", "num_classes": 0}, "num_classes must be at least 1"),
    ],
)
def test_create_refuses_what_it_does_not_know(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        models.create(**arguments)


def test_width_and_small_stem() -> None:
    params = flatten(abstract("resnet18", 32, width=0.25, stem="small", num_classes=10)["params"])
    assert params["conv1/kernel"].shape == (3, 3, 3, 16)
    assert params["layer4_1/conv2/kernel"].shape == (3, 3, 128, 128)
    assert params["head/kernel"].shape == (128, 10)


def test_the_small_stem_keeps_the_resolution_and_the_other_quarters_it() -> None:
    for stem, side in (("small", 32), ("imagenet", 8)):
        model = ResNet(depths=(1,), block="basic", num_classes=5, width=1 / 16, stem=stem)
        images = jnp.zeros((1, 32, 32, 3))

        def shapes(model: Any = model, images: Any = images) -> Any:
            _, state = model.init_with_output(jax.random.key(0), images, capture_intermediates=True)
            return state["intermediates"]["layer1_0"]["__call__"][0]

        assert jax.eval_shape(shapes).shape == (1, side, side, 4)


SMALL = {
    "resnet": ResNet(depths=(1, 1), block="bottleneck", num_classes=5, width=1 / 8),
    "vgg": VGG(stages=((1, 8), (1, 8)), batch_norm=True, num_classes=5, width=1 / 8),
    "vit": ViT(patch=16, features=64, depth=1, num_classes=5),
    "convnext": ConvNeXt(depths=(1, 1), num_classes=5, width=1 / 12),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", SMALL)
def test_bfloat16_computes_in_it_with_float32_parameters_statistics_and_logits(family: str) -> None:
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    exact, fast = SMALL[family], SMALL[family].clone(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(fast.init, jax.random.key(0), images)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(shapes)} <= {"float32", "int32"}
    variables = drawn(shapes)
    traced = jax.jit(fast.apply).trace(variables, images)
    a = np.asarray(jax.jit(exact.apply)(variables, images))
    b = np.asarray(traced.lower().compile()(variables, images))
    assert b.dtype == np.float32
    assert 0 < np.abs(a - b).max() < 0.1 * np.abs(a).max()
    # There is at least one bfloat16 product for each kernel (attention has more).
    kernels = [path for path in flatten(models.prunable(variables["params"])) if "depthwise" not in path]
    assert sum(dtype == jnp.bfloat16 for dtype in products(traced.jaxpr.jaxpr)) >= len(kernels)


def products(jaxpr: Any) -> Iterator[Any]:
    """The dtypes of the products and convolutions in a program; those of a function in it, for each of its calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation.outvars[0].aval.dtype
        for parameter in jax.tree.leaves(equation.params):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from products(inner)


@pytest.mark.slow
def test_train_mode_draws_dropout_and_moves_statistics() -> None:
    model = SMALL["vgg"]
    assert model.dropout == models.create("vgg16_bn").dropout
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    variables = drawn(initializing.shapes(model, image_size=32))
    before = variables["batch_stats"]["bn2_1"]

    @jax.jit
    def forward(key: jax.Array) -> Any:
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})

    logits, updates = forward(jax.random.key(1))
    after = updates["batch_stats"]["bn2_1"]
    assert after["count"] == 1
    assert not np.any(np.isclose(after["mean"], before["mean"], rtol=1e-3, atol=0))
    assert not np.array_equal(logits, forward(jax.random.key(2))[0])


def test_a_vit_refuses_images_that_patches_do_not_tile() -> None:
    with pytest.raises(UserError, match="image size 40x40 is no multiple of the ViT's patch size 16"):
        abstract("vit_ti16", 40)
    assert traced_model(SMALL["vit"], 48)[1]["params"]["pos_embedding"].shape == (1, 10, 64)


@pytest.mark.slow
def test_models_import_alone() -> None:
    code = (
        "import sys; from vpns_jax import models; "
        "print(*sorted({'.'.join(m.split('.')[:2]) for m in sys.modules if m.startswith('vpns_jax.')}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shared = ("errors", "files", "models", "references", "storage", "trees")
    assert done.stdout.split() == [f"vpns_jax.{name}" for name in shared]


@pytest.mark.slow
def test_the_documented_table_is_true() -> None:
    text = (Path(__file__).parents[2] / "docs/models.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| `") and "%" in line]
    rows = {line.split("`")[1]: [cell.strip() for cell in line.split("|")[1:-1]] for line in lines}
    assert list(rows) == list(models.names())
    for name, (_, count, share, source, *_) in rows.items():
        params = abstract(name)["params"]
        kept, total = (sum(p.size for p in jax.tree.leaves(t)) for t in (models.prunable(params), params))
        assert count == f"{total:,}"
        assert share == f"{kept / total:.3%}"
        assert source == (f"`{ENTRIES[name].source}`" if ENTRIES[name].source else "none published")
