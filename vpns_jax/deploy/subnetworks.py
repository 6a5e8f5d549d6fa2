"""A finished sparse network as files: what others load, in PyTorch too, and what belongs to it here.

CELL.safetensors        the network in torchvision's or timm's layout, its pruned weights true zeros
CELL.task.safetensors   its mask (a bit a weight), prompt and label mapping
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import models, trees
from vpns_jax.errors import UserError
from vpns_jax.models import formats
from vpns_jax.sparsity import masks
from vpns_jax.training.network import Subnetwork


def save(path: Path, name: str, subnetwork: Subnetwork) -> None:
    """Writes both files.

    Args:
      path: ends in `.safetensors`; `.task.safetensors` is put beside it.
      name: of the model, as in `models.names()`.
      subnetwork: weights, mask, batch statistics, prompt and mapping.
    """
    weights = masks.apply(subnetwork.weights, subnetwork.mask)
    variables = {"params": weights} | ({"batch_stats": subnetwork.batch_stats} if subnetwork.batch_stats else {})
    tensors: dict[str, np.ndarray] = {"mapping": np.asarray(subnetwork.mapping, np.int32)}
    tensors |= {f"prompt/{key}": np.asarray(x) for key, x in trees.flatten(subnetwork.prompt).items()}
    tensors |= {f"mask/{key}": np.packbits(np.asarray(x)) for key, x in trees.flatten(subnetwork.mask).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    models.save_safetensors(_task_path(path), tensors)
    # Last: where the network is, the rest is too.
    models.save_safetensors(path, models.export(name, jax.device_get(variables)))


def load(path: Path, name: str, *, image_size: int = 224, **options: Any) -> Subnetwork:
    """Reads what `save` wrote; arguments as `models.load_pretrained`'s.

    The weights are those of the sparse network: where the mask is False they are zero.

    Raises:
      UserError: a file is missing or damaged, or is not of that network.
    """
    variables = models.load_pretrained(name, path, num_classes=None, image_size=image_size, **options)
    tensors = formats.read(_task_path(path))
    weights = trees.flatten(variables["params"])
    mask, prompt = {}, {}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "mask":
            mask[rest] = _unpack(path, rest, tensor, weights)
        elif kind == "prompt":
            prompt[rest] = jnp.asarray(tensor)
    if "mapping" not in tensors or not mask:
        raise UserError(f"{_task_path(path)} holds no mask or no mapping; was it written beside {path.name}?")
    return Subnetwork(
        weights=variables["params"],
        mask=trees.unflatten(mask),
        batch_stats=variables.get("batch_stats", {}),
        prompt=trees.unflatten(prompt),
        mapping=jnp.asarray(tensors["mapping"]),
    )


def load_bits(path: Path) -> dict[str, np.ndarray]:
    """The mask that belongs to the network in `path`, without the network.

    Returns:
      By layer uint8, eight weights a byte as `np.packbits` has them.

    Raises:
      UserError: the file beside it is missing or damaged, or holds no mask.
    """
    tensors = formats.read(_task_path(path))
    bits = {key.removeprefix("mask/"): np.array(x) for key, x in tensors.items() if key.startswith("mask/")}
    if not bits or any(x.dtype != np.uint8 for x in bits.values()):
        raise UserError(f"{_task_path(path)} holds no mask")
    return bits


def _unpack(path: Path, key: str, bits: np.ndarray, weights: dict[str, Any]) -> jax.Array:
    """A leaf of the mask, checked against the weight it is for."""
    if key not in weights or bits.dtype != np.uint8 or bits.shape != (-(-weights[key].size // 8),):
        raise UserError(f"{_task_path(path)}: mask of {key} does not fit the network in {path.name}")
    kept = np.unpackbits(bits, count=weights[key].size).astype(bool).reshape(weights[key].shape)
    if np.any(np.asarray(weights[key])[~kept]):
        raise UserError(f"{_task_path(path)}: mask of {key} drops weights that {path.name} has; they are not one pair")
    return jnp.asarray(kept)


def _task_path(path: Path) -> Path:
    return path.with_suffix(".task.safetensors")
