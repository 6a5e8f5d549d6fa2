"""Vision Transformers in other libraries' files."""

import dataclasses
from collections.abc import Mapping

from vpns_jax.models.layouts.rules import Rule, Shape, module_of, torch_rule
from vpns_jax.models.vit import HEAD_DIM


@dataclasses.dataclass(frozen=True)
class _Names:
    """A PyTorch library's names for the parts of a ViT.

    Attributes:
      tokens: the class token, the distillation token and the position embeddings, by our names.
      outside: modules outside of the blocks, by our names.
      block: the prefix of the names in block number i, with "{i}" for the number.
      inside: modules in a block, by our names.
      fused: the prefix of query, key and value where they are one tensor; None where they are three tensors.
    """

    tokens: Mapping[str, str]
    outside: Mapping[str, str]
    block: str
    inside: Mapping[str, str]
    fused: str | None

    def rules(self, shapes: Mapping[str, Shape]) -> list[Rule]:
        rules = []
        for path, shape in shapes.items():
            owner = module_of(path)
            block, _, module = owner.removeprefix("block_").partition("/")
            if not owner:
                rules.append(Rule(self.tokens[path.removeprefix("params/")], (path,), shape, (0, 1, 2), shape))
            elif owner in self.outside:
                rules.append(torch_rule(self.outside[owner], path, shape))
            elif self.fused and module in ("attention/key", "attention/value"):
                continue  # With the query.
            elif self.fused and module == "attention/query":
                rules.append(self._fuse(self.block.format(i=block) + self.fused, path, shape))
            else:
                rules.append(torch_rule(self.block.format(i=block) + self.inside[module], path, shape))
        return rules

    def _fuse(self, name: str, path: str, shape: Shape) -> Rule:
        query = torch_rule("", path, shape)
        paths = tuple(path.replace("/query/", f"/{part}/") for part in ("query", "key", "value"))
        fold = (3 * query.fold[0], *query.fold[1:])
        return dataclasses.replace(query, name=name + query.name.removeprefix("."), paths=paths, fold=fold)


_TIMM = _Names(
    tokens={"cls": "cls_token", "dist": "dist_token", "pos_embedding": "pos_embed"},
    outside={"embedding": "patch_embed.proj", "norm": "norm", "head": "head", "head/dist": "head_dist"},
    block="blocks.{i}.",
    inside={
        "norm1": "norm1",
        "norm2": "norm2",
        "attention/out": "attn.proj",
        "mlp/fc1": "mlp.fc1",
        "mlp/fc2": "mlp.fc2",
    },
    fused="attn.qkv.",
)
_TORCHVISION = _Names(
    tokens={"cls": "class_token", "pos_embedding": "encoder.pos_embedding"},
    outside={"embedding": "conv_proj", "norm": "encoder.ln", "head": "heads.head"},
    block="encoder.layers.encoder_layer_{i}.",
    inside={
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attention/out": "self_attention.out_proj",
        "mlp/fc1": "mlp.0",
        "mlp/fc2": "mlp.3",
    },
    fused="self_attention.in_proj_",
)
_TRANSFORMERS = _Names(
    tokens={
        "cls": "embeddings.cls_token",
        "dist": "embeddings.distillation_token",
        "pos_embedding": "embeddings.position_embeddings",
    },
    outside={"embedding": "embeddings.patch_embeddings.projection", "norm": "layernorm", "head": "classifier"},
    block="encoder.layer.{i}.",
    inside={
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attention/query": "attention.attention.query",
        "attention/key": "attention.attention.key",
        "attention/value": "attention.attention.value",
        "attention/out": "attention.output.dense",
        "mlp/fc1": "intermediate.dense",
        "mlp/fc2": "output.dense",
    },
    fused=None,
)


# The names of transformers 5 in memory, which `torch.save` writes. `save_pretrained` still writes the older names.
_TRANSFORMERS_5 = dataclasses.replace(
    _TRANSFORMERS,
    block="layers.{i}.",
    inside={
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attention/query": "attention.q_proj",
        "attention/key": "attention.k_proj",
        "attention/value": "attention.v_proj",
        "attention/out": "attention.o_proj",
        "mlp/fc1": "mlp.fc1",
        "mlp/fc2": "mlp.fc2",
    },
)


_TWO_CLASSIFIERS = {**_TRANSFORMERS.outside, "head": "cls_classifier", "head/dist": "distillation_classifier"}


def vit_timm(shapes: Mapping[str, Shape]) -> list[Rule]:
    """ViTs and DeiTs in timm's layout: query, key and value are one tensor, `qkv`."""
    return _TIMM.rules(shapes)


def vit_torchvision(shapes: Mapping[str, Shape]) -> list[Rule]:
    """ViTs in torchvision's layout since 0.13: query, key and value are one tensor, `in_proj_weight`."""
    return _TORCHVISION.rules(shapes)


def vit_torchvision_old(shapes: Mapping[str, Shape]) -> list[Rule]:
    """ViTs in the layout of torchvision 0.12, with other names for the MLP's layers; its published files have it."""
    inside = {**_TORCHVISION.inside, "mlp/fc1": "mlp.linear_1", "mlp/fc2": "mlp.linear_2"}
    return dataclasses.replace(_TORCHVISION, inside=inside).rules(shapes)


def vit_transformers(shapes: Mapping[str, Shape]) -> list[Rule]:
    """ViTs in the layout of transformers' `ViTModel`; `ViTForImageClassification` adds a prefix."""
    return _TRANSFORMERS.rules(shapes)


def vit_transformers_5(shapes: Mapping[str, Shape]) -> list[Rule]:
    """ViTs in the state dict of a `ViTModel` of transformers 5; other classes add a prefix."""
    return _TRANSFORMERS_5.rules(shapes)


def deit_transformers(shapes: Mapping[str, Shape]) -> list[Rule]:
    """DeiTs in the layout of transformers' `DeiTModel`; `DeiTForImageClassificationWithTeacher` adds a prefix."""
    return dataclasses.replace(_TRANSFORMERS, outside=_TWO_CLASSIFIERS).rules(shapes)


def deit_transformers_5(shapes: Mapping[str, Shape]) -> list[Rule]:
    """DeiTs in the state dict of a `DeiTModel` of transformers 5; other classes add a prefix."""
    return dataclasses.replace(_TRANSFORMERS_5, outside=_TWO_CLASSIFIERS).rules(shapes)


def vit_augreg(shapes: Mapping[str, Shape]) -> list[Rule]:
    """ViTs in the `.npz` layout of AugReg (Steiner et al. 2021): Flax's layout, with an axis for attention heads."""
    attention = "MultiHeadDotProductAttention_1"
    renamed = {
        "cls": "cls",
        "pos_embedding": "Transformer/posembed_input/pos_embedding",
        "norm": "Transformer/encoder_norm",
        "norm1": "LayerNorm_0",
        "norm2": "LayerNorm_2",
        "attention": attention,
        "mlp": "MlpBlock_3",
        "fc1": "Dense_0",
        "fc2": "Dense_1",
    }
    rules = []
    for path, shape in shapes.items():
        parts = path.split("/")[1:]
        name = "/".join(renamed.get(p, p.replace("block_", "Transformer/encoderblock_")) for p in parts)
        fold = shape
        if parts[-2:-1] and parts[-2] in ("query", "key", "value"):
            fold = (*shape[:-1], shape[-1] // HEAD_DIM, HEAD_DIM)
        elif parts[-2:] == ["out", "kernel"]:
            fold = (shape[0] // HEAD_DIM, HEAD_DIM, shape[1])
        rules.append(Rule(name, (path,), fold, tuple(range(len(fold))), fold))
    return rules
