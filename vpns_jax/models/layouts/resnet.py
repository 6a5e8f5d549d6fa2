"""ResNets in other libraries' files."""

from collections.abc import Mapping

from vpns_jax.models.layouts.rules import Rule, Shape, module_of, torch_rule


def resnet_torchvision(shapes: Mapping[str, Shape]) -> list[Rule]:
    """ResNets in the layout of torchvision and timm."""
    renamed = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1", "head": "fc"}
    rules = []
    for path, shape in shapes.items():
        parts = [renamed.get(part, part.replace("_", ".")) for part in module_of(path).split("/")]
        rules.append(torch_rule(".".join(parts), path, shape))
    return rules


def resnet_transformers(shapes: Mapping[str, Shape]) -> list[Rule]:
    """ResNets in the layout of transformers' `ResNetModel`; `ResNetForImageClassification` adds a prefix."""
    rules = []
    for path, shape in shapes.items():
        *block, module = module_of(path).split("/")
        if module == "head":
            name = "classifier.1"
        elif not block:
            name = f"embedder.embedder.{'convolution' if module == 'conv1' else 'normalization'}"
        else:
            stage, number = block[0].removeprefix("layer").split("_")
            place = "shortcut" if module.startswith("downsample") else f"layer.{int(module[-1]) - 1}"
            part = "convolution" if "conv" in module else "normalization"
            name = f"encoder.stages.{int(stage) - 1}.layers.{number}.{place}.{part}"
        rules.append(torch_rule(name, path, shape))
    return rules
