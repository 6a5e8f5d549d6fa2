"""Writes a finished network as a folder that timm opens: `timm.create_model("local-dir:FOLDER", pretrained=True)`.

config.json         the architecture, the classes and how images are prepared, in timm's words
model.safetensors   the weights by timm's names, zeros included
shapes.txt          the input of `timm.models.adapt_model_from_string`; only for a network that timm cannot create
                    otherwise, because its layers have other widths
"""

from pathlib import Path

import numpy as np

from vpns_jax import files, models
from vpns_jax.deploy.classifier import Classifier
from vpns_jax.deploy.description import Description
from vpns_jax.deploy.exports import state_dict
from vpns_jax.deploy.exports.formats import Format
from vpns_jax.errors import UserError
from vpns_jax.models import layouts, registry
from vpns_jax.models.convnext import ConvNeXt
from vpns_jax.models.vgg import POOLED_SIZE, VGG
from vpns_jax.models.vit import ViT
from vpns_jax.storage import storage_errors

CONFIG, WEIGHTS, SHAPES = "config.json", "model.safetensors", "shapes.txt"
_OTHERWISE = "take format onnx or stablehlo, or safetensors for the weights alone"


def write(classifier: Classifier, path: Path) -> Classifier:
    """Writes a folder.

    Args:
      classifier: the network.
      path: the folder.

    Returns:
      The network.

    Raises:
      UserError: timm has no such network, timm cannot prepare images in the same way, or the disk refuses.
    """
    description, model = classifier.description, classifier.network.model
    _check(classifier)
    tensors = state_dict.state_dict(classifier, layouts.TIMM[type(model)])
    if not all(tensor.size for tensor in tensors.values()):
        raise UserError(f"layers without channels are left in this network, which PyTorch cannot compute: {_OTHERWISE}")
    with storage_errors(path.parent):
        path.mkdir()
        models.save_safetensors(path / WEIGHTS, tensors)
        files.write_json(path / CONFIG, _config(description, model))
        if _has_own_widths(description) and not isinstance(model, ConvNeXt):
            shapes = {name: tensor.shape for name, tensor in tensors.items() if tensor.ndim}
            pairs = (f"{name}:[{', '.join(map(str, shape))}]" for name, shape in shapes.items())
            files.write_whole(path / SHAPES, "***".join(pairs))
    return classifier


def answers(path: Path, classifier: Classifier, squares: np.ndarray) -> np.ndarray:
    """Computes the logits of a network with the weights in a folder, but without timm, which needs PyTorch.

    Args:
      path: the folder.
      classifier: the network that it was made from.
      squares: uint8 [b, image_size, image_size, 3].

    Returns:
      float32 [b, t].
    """
    return state_dict.answers(path / WEIGHTS, classifier, squares)


def _check(classifier: Classifier) -> None:
    description, model = classifier.description, classifier.network.model
    name, side = description.model, description.input_size
    is_vit = isinstance(model, ViT)
    if type(model) not in layouts.TIMM or registry.ALIASES.get(name) in registry.NOT_IN_TIMM:
        raise UserError(f"timm has no {name}: {_OTHERWISE}")
    if not description.prompted and side != description.image_size:
        raise UserError(
            f"this network puts images of {description.image_size} px on a canvas of {side} px, which timm does not: "
            f"{_OTHERWISE}"
        )
    if description.options.get("stem", "imagenet") != "imagenet":
        raise UserError(f"timm has no {name} with a small stem: {_OTHERWISE}")
    # timm's function changes the widths of convolutions, and of dense layers that read them, alone.
    if (is_vit or isinstance(model, ConvNeXt)) and description.options.get("widths"):
        raise UserError(f"timm has no {name} whose layers have widths of their own: {_OTHERWISE}")
    # timm averages over all positions; torchvision and this library first pool to POOLED_SIZE x POOLED_SIZE.
    if isinstance(model, VGG) and side // 2 ** len(model.stages) > POOLED_SIZE:
        raise UserError(f"timm's {name} computes something else for images of {side} px: {_OTHERWISE}")


def _has_own_widths(description: Description) -> bool:
    return description.options.get("width", 1) != 1 or bool(description.options.get("widths"))


def _config(description: Description, model: object) -> dict[str, object]:
    header = description.to_json()
    config = {key: header[key] for key in ("architecture", "num_classes", "label_names", "pretrained_cfg", "origin")}
    arguments: dict[str, object] = {}
    if isinstance(model, ViT):
        arguments = {"img_size": description.input_size}
    elif isinstance(model, ConvNeXt) and _has_own_widths(description):
        arguments = {"dims": model.features}
    return config | ({"model_args": arguments} if arguments else {})


TIMM = Format(
    name="timm",
    meaning='a folder for timm.create_model("local-dir:FOLDER", pretrained=True)',
    suffix="",
    write=write,
    answers=answers,
)
