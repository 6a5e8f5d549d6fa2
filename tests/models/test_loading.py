"""Loading is strict except where the caller allows it, and exporting returns the file unchanged."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import recipe
from vpns_jax import models, trees
from vpns_jax.errors import UserError
from vpns_jax.models import initializing, layouts, loading

# A ResNet-18 with 4 channels in its first stage: the full structure, 1/256 of the weights.
NARROW: dict[str, Any] = {"width": 1 / 16, "num_classes": 10}


def shapes_of(name: str, **options: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of all variables by path, found by tracing."""
    return initializing.shapes_by_path(models.create(name, **options), image_size=224)


def state_dict(name: str, layout: layouts.Layout, **options: Any) -> dict[str, np.ndarray]:
    """The tensors of a file in that layout, with nonzero counts of batches."""
    tensors = {r.name: recipe.torch_tensor(r.name, r.fold) for r in layout(shapes_of(name, **options))}
    return {k: v + 12345 if k.endswith("num_batches_tracked") else v for k, v in tensors.items()}


@functools.cache
def narrow() -> dict[str, np.ndarray]:
    return state_dict("resnet18", layouts.resnet_torchvision, **NARROW)


def load(tmp_path: Path, changes: dict[str, Any], **options: Any) -> Any:
    """Loads the narrow network's tensors with some replaced, or dropped where None."""
    tensors = {k: v for k, v in (narrow() | changes).items() if v is not None}
    np.savez(tmp_path / "w.npz", **tensors)
    return models.load_pretrained("resnet18", tmp_path / "w.npz", **NARROW | options)


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    changes = {
        "conv1.weight": np.zeros((4, 3, 3, 3), np.float32),
        "bn1.weight": None,
        "layer1.0.conv1.weight": narrow()["layer1.0.conv1.weight"].astype(np.float64),
        "layer1.0.bn1.bias": np.array([1, np.nan, np.inf, 0], np.float32),
        "layer2.0.bn1.num_batches_tracked": np.array(-1),
        "fc.weight": np.zeros((7, 32), np.float32),
        "aux.weight": np.zeros(1, np.float32),
    }
    with pytest.raises(UserError) as caught:
        load(tmp_path, changes)
    assert sorted(caught.value.details) == [
        "aux.weight is not used",
        "bn1.weight is missing",
        "conv1.weight has shape [4, 3, 3, 3], expected [4, 3, 7, 7]",
        "fc.weight has shape [7, 32], expected [10, 32]",
        "layer1.0.bn1.bias has 2 values that are NaN or infinite",
        "layer1.0.conv1.weight has dtype float64, expected float32",
        "layer2.0.bn1.num_batches_tracked is -1, not a count below 2**31",
    ]
    text = str(caught.value)
    assert "w.npz does not fit resnet18: its network has another width, depth or patch size. 1 missing" in text
    assert all(words in text for words in ("1 not used", "1 wrong dtype", "2 wrong shape", "2 bad values", "--verbose"))
    assert "\n" not in text
    assert len(text) <= 400


def test_names_are_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ignore pattern 'aux' matches nothing") as caught:
        load(tmp_path, {}, ignore=("aux",))
    assert caught.value.details == tuple(narrow())


@pytest.mark.parametrize("dtype", ["float64", "int32", ">f4"])
def test_wrong_dtypes_are_refused(dtype: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fc\.bias has dtype"):
        load(tmp_path, {"fc.bias": np.zeros(10, dtype)})


def test_batch_counts_may_be_missing(tmp_path: Path) -> None:
    counts = {k: None for k in narrow() if k.endswith("num_batches_tracked")}
    assert load(tmp_path, counts)["batch_stats"]["bn1"]["count"] == 0
    assert load(tmp_path, {})["batch_stats"]["bn1"]["count"] == 12345


@pytest.mark.slow
def test_as_many_classes_as_the_file_has(tmp_path: Path) -> None:
    variables = load(tmp_path, {}, num_classes=None)
    assert variables["params"]["head"]["kernel"].shape == (32, 10)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, load(tmp_path, {})))
    with pytest.raises(UserError, match=r"it has no head: mapping\.kind=head, or dont_load.* 1 missing: fc\.bias"):
        load(tmp_path, {"fc.bias": None}, num_classes=None)


@pytest.mark.slow
def test_a_fresh_head_by_name(tmp_path: Path) -> None:
    whole = load(tmp_path, {})
    fresh = load(tmp_path, {"fc.bias": None}, num_classes=3, dont_load=("head",), seed=1)
    assert fresh["params"]["head"]["kernel"].shape == (32, 3)
    assert np.std(fresh["params"]["head"]["kernel"]) > 0
    again, other = (
        load(tmp_path, {}, num_classes=3, dont_load=("head/*",), seed=s)["params"]["head"]["kernel"] for s in (1, 2)
    )
    assert np.array_equal(again, fresh["params"]["head"]["kernel"])
    assert not np.array_equal(again, other)
    rest = {k: v for k, v in trees.flatten(fresh).items() if "/head/" not in k}
    assert all(np.array_equal(v, trees.flatten(whole)[k]) for k, v in rest.items())
    with pytest.raises(
        UserError, match=r"dont_load pattern 'fc' matches nothing; nearest of 122 \(--verbose lists all\): "
    ):
        load(tmp_path, {}, dont_load=("fc",))


def test_tensors_to_ignore_by_name(tmp_path: Path) -> None:
    extra = {"aux.weight": np.zeros(3, np.float16)}
    assert "aux" not in load(tmp_path, extra, ignore=("aux.*",))["params"]
    with pytest.raises(UserError, match=r"ignore pattern 'aux\.\*' matches nothing"):
        load(tmp_path, {}, ignore=("aux.*",))


def test_loaded_arrays_do_not_depend_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    models.save_safetensors(path, narrow())
    variables = models.load_pretrained("resnet18", path, **NARROW)
    before = np.array(variables["params"]["head"]["bias"])
    with path.open("r+b") as file:
        file.seek(0)
        file.write(bytes(path.stat().st_size))
    np.testing.assert_array_equal(variables["params"]["head"]["bias"], before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layout", "options"),
    [
        ("resnet18", layouts.resnet_torchvision, NARROW),
        ("resnet50", layouts.resnet_torchvision, NARROW | {"stem": "small"}),
        ("vgg16_bn", layouts.vgg_torchvision, NARROW),
        ("vit_ti32", layouts.vit_timm, {"num_classes": 10}),
    ],
)
def test_export_gives_back_the_file_bit_for_bit(name: str, layout: Any, options: Any, tmp_path: Path) -> None:
    tensors = state_dict(name, layout, **options)
    np.savez(tmp_path / "w.npz", **tensors)
    exported = models.export(name, models.load_pretrained(name, tmp_path / "w.npz", **options))
    assert set(exported) == set(tensors)
    for key, tensor in tensors.items():
        assert (exported[key].dtype, exported[key].shape) == (tensor.dtype, tensor.shape), key
        assert exported[key].tobytes() == tensor.tobytes(), key


def test_an_exported_subnetwork_keeps_its_zeros(tmp_path: Path) -> None:
    variables = load(tmp_path, {})
    pruned = jax.tree.map(lambda p: np.where(np.abs(p) < 0.05, np.float32(0), p), variables["params"])
    models.save_safetensors(tmp_path / "sub.safetensors", models.export("resnet18", variables | {"params": pruned}))
    again = models.load_pretrained("resnet18", tmp_path / "sub.safetensors", **NARROW)
    assert jax.tree.all(jax.tree.map(np.array_equal, again["params"], pruned))


def test_export_refuses_another_network(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"not the variables of resnet34: missing \[.*layer1_2/bn1/count.* and 93 more\]"
    ):
        models.export("resnet34", load(tmp_path, {}))


def test_a_network_without_a_layout_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(layouts.LAYOUTS, type(models.create("resnet18")))
    for attempt in (
        lambda: models.load_pretrained("resnet18", tmp_path / "none.safetensors"),
        lambda: models.export("resnet18", {}),
        lambda: models.check_layout("resnet18"),
    ):
        with pytest.raises(UserError, match=r"resnet18 has no weight layout, .* models\.layouts\.LAYOUTS"):
            attempt()


def test_timms_vgg_is_torchvisions_with_dense_layers_as_convolutions(tmp_path: Path) -> None:
    tensors = state_dict("vgg16_bn", layouts.vgg_torchvision, **NARROW)
    # 512 / 16 channels and 4096 / 16 hidden units in the narrow network.
    timm = {}
    for key, tensor in tensors.items():
        renamed = key.replace("classifier.0", "pre_logits.fc1").replace("classifier.3", "pre_logits.fc2")
        shape = {"classifier.0.weight": (256, 32, 7, 7), "classifier.3.weight": (256, 256, 1, 1)}.get(key)
        timm[renamed.replace("classifier.6", "head.fc")] = tensor.reshape(shape) if shape else tensor
    np.savez(tmp_path / "tv.npz", **tensors)
    np.savez(tmp_path / "timm.npz", **timm)
    ours, theirs = (models.load_pretrained("vgg16_bn", tmp_path / f"{k}.npz", **NARROW) for k in ("tv", "timm"))
    assert jax.tree.all(jax.tree.map(np.array_equal, ours, theirs))


def test_torch_names_of_vgg16_bn() -> None:
    # Counted by hand in torchvision's `features`: convolution, norm, ReLU; a pool after each stage.
    rules = {rule.paths[0]: rule.name for rule in layouts.vgg_torchvision(shapes_of("vgg16_bn"))}
    for path, name in {
        "params/conv1_2/kernel": "features.3.weight",
        "params/conv2_1/kernel": "features.7.weight",
        "params/conv3_3/bias": "features.20.bias",
        "params/conv5_3/kernel": "features.40.weight",
        "params/bn5_3/scale": "features.41.weight",
        "batch_stats/bn5_3/var": "features.41.running_var",
        "params/head/bias": "classifier.6.bias",
    }.items():
        assert rules[path] == name


# Position embeddings


def test_resized_positions_are_torchs() -> None:
    # torch 2.13: interpolate(arange(9).view(1, 1, 3, 3) ** 2, size, mode="bicubic", antialias=True).
    embedding = np.concatenate([[100.0], np.arange(9.0) ** 2]).astype(np.float32).reshape(1, 10, 1)
    down = [100, 2.8712, 8.1978, 30.2845, 47.0445]
    np.testing.assert_allclose(loading.resize_positions(embedding, (1, 5, 1), 1).ravel(), down, atol=1e-4)
    up = [-0.5060, -0.2283, 1.2673, 3.0433, 3.5198, 6.0216, 10.7567, 14.7568]
    up += [19.2044, 24.9457, 34.3995, 41.6391, 36.7150, 44.6803, 57.3736, 66.8373]
    np.testing.assert_allclose(loading.resize_positions(embedding, (1, 17, 1), 1).ravel(), [100, *up], atol=1e-4)
    assert loading.resize_positions(embedding, (1, 10, 1), 1) is embedding
    # Another token stays as it is, too; and what is no square grid behind the tokens is left to the caller.
    two = np.concatenate([np.full((1, 1, 1), 7, np.float32), embedding], axis=1)
    np.testing.assert_allclose(loading.resize_positions(two, (1, 6, 1), 2).ravel(), [7, *down], atol=1e-4)
    assert loading.resize_positions(two, (1, 5, 1), 1) is two


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
def test_a_vit_loads_for_another_canvas(tmp_path: Path) -> None:
    tensors = state_dict("vit_ti32", layouts.vit_timm, num_classes=10)
    np.savez(tmp_path / "w.npz", **tensors)
    variables = models.load_pretrained("vit_ti32", tmp_path / "w.npz", num_classes=10, image_size=64)
    positions = variables["params"]["pos_embedding"]
    assert positions.shape == (1, 1 + 4, 192)
    np.testing.assert_array_equal(positions[:, 0], tensors["pos_embed"][:, 0])
    # Antialiased and reduced to 2x2, the grid keeps its mean, roughly: rows of weights sum to one.
    mean = tensors["pos_embed"][0, 1:].mean(axis=0)
    assert np.corrcoef(positions[0, 1:].mean(axis=0), mean)[0, 1] > 0.9
    model = models.create("vit_ti32", num_classes=10)
    assert jax.eval_shape(model.apply, variables, jnp.zeros((2, 64, 64, 3))).shape == (2, 10)
    oblong = tensors | {"pos_embed": tensors["pos_embed"][:, :-1]}
    np.savez(tmp_path / "w.npz", **oblong)
    with pytest.raises(UserError, match=r"pos_embed has shape \[1, 49, 192\], expected \[1, 5, 192\]"):
        models.load_pretrained("vit_ti32", tmp_path / "w.npz", num_classes=10, image_size=64)
