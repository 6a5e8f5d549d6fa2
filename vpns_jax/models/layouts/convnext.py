"""ConvNeXts in other libraries' files."""

from collections.abc import Mapping

from vpns_jax.models.layouts.rules import Rule, Shape, module_of, torch_rule


def convnext_timm(shapes: Mapping[str, Shape]) -> list[Rule]:
    """ConvNeXts in timm's layout."""
    outside = {"stem_conv": "stem.0", "stem_norm": "stem.1", "norm": "head.norm", "head": "head.fc"}
    inside = {"depthwise": "conv_dw", "norm": "norm", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    rules = []
    for path, shape in shapes.items():
        owner, _, layer = module_of(path).partition("/")
        if owner in outside:
            name = outside[owner]
        elif owner.startswith("downsample"):
            stage, kind = owner.removeprefix("downsample").split("_")
            name = f"stages.{int(stage) - 1}.downsample.{0 if kind == 'norm' else 1}"
        else:
            stage, block = owner.removeprefix("stage").split("_")
            name = f"stages.{int(stage) - 1}.blocks.{block}" + (f".{inside[layer]}" if layer else "")
        rules.append(torch_rule(name, path, shape))
    return rules
