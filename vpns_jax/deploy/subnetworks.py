"""The two files of a finished sparse network: one that other libraries load, PyTorch too, and one for this library.

CELL.safetensors        the network in the layout that `models.export` takes; its pruned weights are true zeros
CELL.task.safetensors   its mask (one bit for each weight), prompt and label mapping; in the metadata its description,
                        and checksums of both files
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from vpns_jax import files, models, trees
from vpns_jax.deploy import checks
from vpns_jax.errors import UserError
from vpns_jax.models import formats
from vpns_jax.storage import storage_errors
from vpns_jax.training.network import Subnetwork

# The only entry of the metadata. Files without it are older than the checksums, and have the metadata `_BEFORE`.
_ABOUT = "vpns_jax"
_BEFORE = {"format": "pt"}
_REMEDY = "restore both files, or remove them and cells/CELL.json beside their folder and run that cell again"


def save(path: Path, name: str, subnetwork: Subnetwork, about: Mapping[str, Any] | None = None) -> None:
    """Writes both files.

    Args:
      path: the path of the first file, which ends in `.safetensors`; `.task.safetensors` is written beside it.
      name: the model's name, as for `models.create`.
      subnetwork: weights, mask, batch statistics, prompt and mapping.
      about: the network's description, a JSON object.

    Raises:
      UserError: the disk refuses.
    """
    tensors: dict[str, np.ndarray] = {"mapping": np.asarray(subnetwork.mapping, np.int32)}
    tensors |= {f"prompt/{key}": np.asarray(x) for key, x in trees.flatten(subnetwork.prompt).items()}
    tensors |= {f"mask/{key}": np.packbits(np.asarray(x)) for key, x in trees.flatten(subnetwork.mask).items()}
    unfinished = path.with_name(f"unfinished-{path.name}")
    weights = models.export(name, jax.device_get(subnetwork).masked().variables())
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            models.save_safetensors(unfinished, weights)
            header = files.plain(about or {}) | {"model": name}
            header |= {"network": files.sha256(unfinished), "task": _digest(tensors)}
            metadata = {_ABOUT: json.dumps(header | {"about": files.digest_json(header)})}
            files.write_whole(task_path(path), safetensors.numpy.save(formats.in_c_order(tensors), metadata))
            # The network comes last: if its file exists, the other file exists, too.
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def load(path: Path, name: str, *, image_size: int = 224, **options: Any) -> Subnetwork:
    """Reads a network that `save` wrote. Its weights are zero where the mask is False.

    Args:
      path: the network's file.
      name: the name of the network's model.
      image_size: the side of the model's input, in pixels.
      **options: the model's options; see `models.create`.

    Returns:
      The network.

    Raises:
      UserError: a file is missing or damaged, or belongs to another network; or an older version wrote it without a
        mask.
    """
    tensors, header = _read_task(path)
    _check_network(path, header)
    variables = models.load_pretrained(name, path, num_classes=None, image_size=image_size, **options)
    weights = trees.flatten(variables["params"])
    mask, prompt = {}, {}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "mask":
            mask[rest] = _unpack(path, rest, tensor, weights)
        elif kind == "prompt":
            prompt[rest] = tensor
    # A network without a mask is saved with a header, which says that nothing was lost.
    if "mapping" not in tensors or not (mask or header):
        raise UserError(f"{task_path(path)} holds no mask or no mapping; was it written beside {path.name}?")
    try:
        checks.check_mapping(tensors["mapping"], weights[f"{models.HEAD}/bias"].size)
    except UserError as error:
        raise UserError(f"{task_path(path)}: {error}") from error
    return Subnetwork(
        weights=variables["params"],
        mask=trees.unflatten(mask),
        batch_stats=variables.get("batch_stats", {}),
        prompt=jax.device_put(trees.unflatten(prompt)),
        mapping=jax.device_put(tensors["mapping"]),
    )


def about(path: Path) -> dict[str, Any]:
    """Reads the description that `save` was given, with the name as "model".

    Args:
      path: the network's file.

    Returns:
      The description; {} for files of versions that did not keep it.

    Raises:
      UserError: one of the two files is missing or damaged.
    """
    _, header = _read_task(path)
    _check_network(path, header)
    return {key: value for key, value in header.items() if key not in ("network", "task", "about")}


def digest(path: Path) -> str:
    """Computes a digest of both files, which does not depend on their folder.

    Args:
      path: the network's file.

    Returns:
      The SHA-256 of each file.

    Raises:
      UserError: one of them is missing or damaged.
    """
    about(path)
    return f"{files.sha256(path)} {files.sha256(task_path(path))}"


def load_bits(path: Path) -> dict[str, np.ndarray]:
    """Reads the mask of a network, without the network.

    Args:
      path: the network's file.

    Returns:
      For each layer its mask as uint8, eight weights in a byte, in the layout of `np.packbits`.

    Raises:
      UserError: the file beside it is missing or damaged, or holds no mask.
    """
    tensors, _ = _read_task(path)
    bits = {key.removeprefix("mask/"): np.array(x) for key, x in tensors.items() if key.startswith("mask/")}
    if not bits or any(x.dtype != np.uint8 for x in bits.values()):
        raise UserError(f"{task_path(path)} holds no mask")
    return bits


def _unpack(path: Path, key: str, bits: np.ndarray, weights: dict[str, Any]) -> jax.Array:
    """Unpacks a leaf of the mask, and checks that it fits its weights and that pruned weights are zero."""
    if key not in weights or bits.dtype != np.uint8 or bits.shape != (-(-weights[key].size // 8),):
        raise UserError(f"{task_path(path)}: mask of {key} does not fit the network in {path.name}")
    kept = np.unpackbits(bits, count=weights[key].size).astype(bool).reshape(weights[key].shape)
    if np.any(np.asarray(weights[key])[~kept]):
        raise UserError(f"{task_path(path)}: mask of {key} drops weights that {path.name} has; they are not one pair")
    return jax.device_put(kept)


def _read_task(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the second file, and checks it; returns its tensors and its metadata."""
    task = task_path(path)
    tensors = formats.read(task)
    with safetensors.safe_open(task, framework="np") as file:
        metadata = file.metadata() or {}
    if metadata == _BEFORE:
        return tensors, {}
    try:
        header = json.loads(metadata[_ABOUT])
        whole = header["about"] == files.digest_json({key: value for key, value in header.items() if key != "about"})
        whole = whole and header["task"] == _digest(tensors) and isinstance(header["network"], str)
    except (KeyError, TypeError, ValueError, RecursionError):
        whole = False
    if not whole:
        raise UserError(f"{task} is damaged: it does not match its checksum; {_REMEDY}")
    return tensors, header


def _check_network(path: Path, header: Mapping[str, Any]) -> None:
    """Raises `UserError` if the two files were not written together."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if header and files.sha256(path) != header["network"]:
        raise UserError(f"{path} is damaged, or it and {task_path(path).name} are not one pair; {_REMEDY}")


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    return files.digest_arrays(sorted(tensors.items()))


def task_path(path: Path) -> Path:
    """The path of the second file, beside the network's."""
    return path.with_suffix(".task.safetensors")
