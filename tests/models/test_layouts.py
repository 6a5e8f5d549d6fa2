"""Files in the layouts of other libraries."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.foreign_files import Tensors, assert_equal, deit, load, renamed, vit
from tests.models.test_loading import NARROW, state_dict
from vpns_jax import trees
from vpns_jax.errors import UserError
from vpns_jax.models import layouts

pytestmark = pytest.mark.usefixtures("shallow")


# Other libraries' layouts, written from ours by hand. Names are those of torchvision 0.20, transformers 4.50
# and 5.24; files of torchvision 0.29 and transformers 5.24 were loaded by hand, and gave their logits (docs/models.md).

VIT_TORCHVISION = (
    (r"^cls_token", "class_token"),
    (r"^pos_embed", "encoder.pos_embedding"),
    (r"^patch_embed\.proj", "conv_proj"),
    (r"^blocks\.", "encoder.layers.encoder_layer_"),
    (r"attn\.qkv\.", "self_attention.in_proj_"),
    (r"attn\.proj", "self_attention.out_proj"),
    (r"norm(\d)\.", r"ln_\1."),
    (r"mlp\.fc1", "mlp.0"),
    (r"mlp\.fc2", "mlp.3"),
    (r"^norm", "encoder.ln"),
    (r"^head", "heads.head"),
)
VIT_TORCHVISION_OLD = (*VIT_TORCHVISION, (r"mlp\.0", "mlp.linear_1"), (r"mlp\.3", "mlp.linear_2"))
VIT_TRANSFORMERS = (
    (r"^cls_token", "vit.embeddings.cls_token"),
    (r"^pos_embed", "vit.embeddings.position_embeddings"),
    (r"^patch_embed\.proj", "vit.embeddings.patch_embeddings.projection"),
    (r"^blocks\.", "vit.encoder.layer."),
    (r"attn\.(query|key|value)", r"attention.attention.\1"),
    (r"attn\.proj", "attention.output.dense"),
    (r"norm1", "layernorm_before"),
    (r"norm2", "layernorm_after"),
    (r"mlp\.fc1", "intermediate.dense"),
    (r"mlp\.fc2", "output.dense"),
    (r"^norm", "vit.layernorm"),
    (r"^head", "classifier"),
)
VIT_TRANSFORMERS_5 = (
    *VIT_TRANSFORMERS,
    (r"encoder\.layer\.", "layers."),
    (r"attention\.attention\.query", "attention.q_proj"),
    (r"attention\.attention\.key", "attention.k_proj"),
    (r"attention\.attention\.value", "attention.v_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"(\d)\.output\.dense", r"\1.mlp.fc2"),
)
DEIT = ((r"^dist_token", "vit.embeddings.distillation_token"), (r"^head_dist", "distillation_classifier"))
DEIT = (*DEIT, (r"^head", "cls_classifier"))
RESNET_TRANSFORMERS = (
    (r"^conv1", "resnet.embedder.embedder.convolution"),
    (r"^bn1", "resnet.embedder.embedder.normalization"),
    (r"downsample\.0", "shortcut.convolution"),
    (r"downsample\.1", "shortcut.normalization"),
    (r"\.conv1", ".layer.0.convolution"),
    (r"\.conv2", ".layer.1.convolution"),
    (r"\.conv3", ".layer.2.convolution"),
    (r"\.bn1", ".layer.0.normalization"),
    (r"\.bn2", ".layer.1.normalization"),
    (r"\.bn3", ".layer.2.normalization"),
    (r"^layer1\.", "resnet.encoder.stages.0.layers."),
    (r"^layer2\.", "resnet.encoder.stages.1.layers."),
    (r"^layer3\.", "resnet.encoder.stages.2.layers."),
    (r"^layer4\.", "resnet.encoder.stages.3.layers."),
    (r"^fc", "classifier.1"),
)


def separate(tensors: Tensors) -> Tensors:
    """Splits the fused tensors into query, key and value."""
    result: Tensors = {}
    for key, tensor in tensors.items():
        if ".qkv." in key:
            parts = zip(("query", "key", "value"), np.split(tensor, 3), strict=True)
            result |= {key.replace("qkv", part): split for part, split in parts}
        else:
            result[key] = tensor
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "make"),
    [
        ("vit_torchvision", lambda: renamed(vit(), *VIT_TORCHVISION)),
        ("vit_torchvision_old", lambda: renamed(vit(), *VIT_TORCHVISION_OLD)),
        ("vit_transformers", lambda: renamed(separate(vit()), *VIT_TRANSFORMERS)),
        ("vit_transformers_5", lambda: renamed(separate(vit()), *VIT_TRANSFORMERS_5)),
    ],
)
def test_vits_in_other_layouts(layout: str, make: Callable[[], Tensors], tmp_path: Path) -> None:
    tensors = make()
    assert not any(key.startswith(("blocks", "norm", "head.")) for key in tensors)
    pretrained = load(tmp_path, tensors, "vit_ti32", num_classes=None)
    assert pretrained.layout == layout
    assert_equal(pretrained, load(tmp_path, vit(), "vit_ti32"))
    # The layout's rules also convert back to the file's tensors.
    leaves = trees.flatten(pretrained.variables)
    rules = getattr(layouts, layout)({path: leaf.shape for path, leaf in leaves.items()})
    written = {rule.name: rule.to_file(leaves) for rule in rules}
    read = {key.removeprefix("vit."): tensor for key, tensor in tensors.items()}
    assert set(written) == set(read)
    assert all(np.array_equal(written[key], read[key]) for key in read)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_in_transformers_layout(name: str, tmp_path: Path) -> None:
    ours = state_dict(name, layouts.resnet_torchvision, **NARROW)
    pretrained = load(tmp_path, renamed(ours, *RESNET_TRANSFORMERS), name, num_classes=None)
    assert pretrained.layout == "resnet_transformers"
    assert_equal(pretrained, load(tmp_path, ours, name))


@pytest.mark.parametrize(
    ("layout", "rules"),
    [("deit_transformers", (*DEIT, *VIT_TRANSFORMERS)), ("deit_transformers_5", (*DEIT, *VIT_TRANSFORMERS_5))],
)
def test_distilled_networks_in_transformers_layout(layout: str, rules: Any, tmp_path: Path) -> None:
    tensors = renamed(separate(deit()), *rules)
    pretrained = load(tmp_path, tensors, "deit_ti16_distilled", num_classes=None)
    assert pretrained.layout == layout
    assert_equal(pretrained, load(tmp_path, deit(), "deit_ti16_distilled"))


def test_a_new_head_of_a_distilled_network_is_new_twice(tmp_path: Path) -> None:
    head = load(tmp_path, deit(), "deit_ti16_distilled", num_classes=3, dont_load=("head",)).variables["params"]["head"]
    kernels = head["kernel"], head["dist"]["kernel"]
    assert all(kernel.shape == (192, 3) and np.abs(kernel).max() <= 192**-0.5 for kernel in kernels)
    assert not np.array_equal(*kernels)


def test_a_model_without_its_head_has_no_prefix(tmp_path: Path) -> None:
    tensors = renamed(separate(vit()), *VIT_TRANSFORMERS, (r"^vit\.", ""))
    bare = {key: tensor for key, tensor in tensors.items() if not key.startswith("classifier")}
    bare["pooler.dense.weight"] = np.zeros((192, 192), np.float32)
    pretrained = load(tmp_path, bare, "vit_ti32", dont_load=("head",), ignore=("pooler.*",))
    assert pretrained.layout == "vit_transformers"
    with pytest.raises(UserError, match="not used: pooler"):
        load(tmp_path, bare, "vit_ti32", dont_load=("head",))
    with pytest.raises(UserError, match=r"it has no head, and holds more.*mapping\.kind=head.*model\.ignore"):
        load(tmp_path, bare, "vit_ti32")
