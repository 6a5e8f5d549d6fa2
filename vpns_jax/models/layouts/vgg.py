"""VGGs in other libraries' files."""

from collections.abc import Mapping

from vpns_jax.models.layouts.rules import Rule, Shape, module_of, torch_rule
from vpns_jax.models.vgg import POOLED_SIZE


def vgg_torchvision(shapes: Mapping[str, Shape]) -> list[Rule]:
    """VGGs in torchvision's layout: the first dense layer's inputs are ordered by channel, then row, then column."""
    names = _vgg_features(shapes) | {"fc1": "classifier.0", "fc2": "classifier.3", "head": "classifier.6"}
    rules = []
    for path, shape in shapes.items():
        first = path == "params/fc1/kernel"
        unfold = (POOLED_SIZE, POOLED_SIZE, shape[0] // POOLED_SIZE**2, shape[1]) if first else None
        rules.append(torch_rule(names[module_of(path)], path, shape, unfold=unfold, merge=first))
    return rules


def vgg_timm(shapes: Mapping[str, Shape]) -> list[Rule]:
    """VGGs in timm's layout: the two hidden dense layers are convolutions, 7x7 and 1x1."""
    names = _vgg_features(shapes) | {"fc1": "pre_logits.fc1", "fc2": "pre_logits.fc2", "head": "head.fc"}
    sides = {"params/fc1/kernel": POOLED_SIZE, "params/fc2/kernel": 1}
    rules = []
    for path, shape in shapes.items():
        side = sides.get(path)
        unfold = (side, side, shape[0] // side**2, shape[1]) if side else None
        rules.append(torch_rule(names[module_of(path)], path, shape, unfold=unfold))
    return rules


def _vgg_features(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """The names of convolutions and norms: their index in torch's `features`, which also counts ReLUs and pools."""
    modules = {module_of(path) for path in shapes}
    names, index, last_stage = {}, 0, "1"
    for conv in sorted(m for m in modules if m.startswith("conv")):
        stage, i = conv.removeprefix("conv").split("_")
        index += stage != last_stage  # The pool between the stages.
        last_stage = stage
        names[conv], index = f"features.{index}", index + 1
        if f"bn{stage}_{i}" in modules:
            names[f"bn{stage}_{i}"], index = f"features.{index}", index + 1
        index += 1  # The ReLU.
    return names
