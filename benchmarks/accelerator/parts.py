"""What is measured, the most important first."""

import dataclasses
from collections.abc import Mapping
from typing import Any

# The limits below are for this many minutes; with more minutes they grow.
MINUTES = 9.0


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the benchmark, which runs in a process of its own.

    Attributes:
      name: identifies it on the command line.
      title: its heading on the page.
      module: the module whose function `rows(tiny, **arguments)` yields instances of `rows.Row`.
      seconds: the time after which it is cut off.
      arguments: of that function.
    """

    name: str
    title: str
    module: str
    seconds: float
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _part(name: str, title: str, module: str, seconds: float, **arguments: Any) -> Part:
    return Part(name, title, f"benchmarks.accelerator.{module}", seconds, arguments)


_STEPS = ("dense", "prune (VPNs)", "retrain, masked, prompt", "prune (VPNs, reference)")
_FEW = ("dense", "prune (VPNs)", "retrain, masked, prompt")

PARTS = (
    _part("machine", "The machine", "machine", 45),
    _part("checks", "Right answers", "checks", 110),
    _part("selection", "Selection", "selecting", 100),
    _part("resnet50", "Steps of ResNet-50, bfloat16", "steps", 130, model="resnet50", dtype="bfloat16", names=_FEW),
    _part("vit_b16", "Steps of ViT-B/16, bfloat16", "steps", 110, model="vit_b16", dtype="bfloat16", names=_FEW),
    _part("resnet18", "Steps of ResNet-18, bfloat16", "steps", 90, model="resnet18", dtype="bfloat16", names=_STEPS),
    _part("profile", "A step's longest kernels", "profiling", 60, model="resnet50"),
    _part("inference", "Inference of ResNet-50", "inference", 60, model="resnet50"),
    _part(
        "compiled",
        "Steps of ResNet-50, bfloat16, beside `torch.compile`",
        "steps",
        90,
        model="resnet50",
        dtype="bfloat16",
        names=("dense", "prune (VPNs)"),
        compiled=True,
    ),
    _part("optimizers", "Masks kept and moved by the optimizer", "optimizers", 45),
    _part(
        "resnet50 float32", "Steps of ResNet-50, float32", "steps", 75, model="resnet50", dtype="float32", names=_FEW
    ),
    _part("start", "The first step, with and without compiled programs", "starting", 75, model="resnet50"),
    _part("input", "Images from the host", "feeding", 60),
    _part("vit_b16 float32", "Steps of ViT-B/16, float32", "steps", 75, model="vit_b16", dtype="float32", names=_FEW),
    _part(
        "resnet18 float32", "Steps of ResNet-18, float32", "steps", 60, model="resnet18", dtype="float32", names=_FEW
    ),
    _part("vgg16", "Steps of VGG-16, bfloat16", "steps", 60, model="vgg16", dtype="bfloat16", names=_FEW),
)
