"""Stores a masked network in one small file: the mask with one bit for each weight, and the weights that are kept.

It is a safetensors file with these tensors, where PATH is a path in this library, such as "layer1_0/conv1/kernel":

    mask/PATH     uint8: one bit for each weight in C order, 1 if it is kept, by `np.packbits`; then compressed by zlib
                  (to 0.36 bits for each weight at density 0.05, and to 0.55 at density 0.1)
    kept/PATH     the kept weights in C order; float32, float16 or bfloat16
    whole/PATH    all other variables; their paths begin with "params/" or "batch_stats/"
    prompt/NAME   the prompt's parameters
    mapping       int32 [t], the source class of each target class

The metadata has one entry, "vpns_jax": a JSON object with the network's description (`Description.to_json`), "shapes"
of the masked weights by path, and "checksum", that of the other keys and the tensors.
"""

import dataclasses
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from vpns_jax import files, models, trees
from vpns_jax.deploy import checks, verifying
from vpns_jax.deploy.classifier import Classifier
from vpns_jax.deploy.description import Description
from vpns_jax.deploy.exports.formats import Format, Option
from vpns_jax.errors import LONGEST, UserError, short, shorten
from vpns_jax.models import formats, initializing
from vpns_jax.training.network import Subnetwork

SUFFIX = ".packed.safetensors"
DTYPES: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
_ABOUT = "vpns_jax"


def write(classifier: Classifier, path: Path, *, dtype: str) -> Classifier:
    """Writes a network.

    Args:
      classifier: the network.
      path: the file.
      dtype: the dtype of the kept weights, a key of `DTYPES`; everything else is stored unchanged.

    Returns:
      The network with its kept weights rounded to the dtype; with float32 they are unchanged.

    Raises:
      UserError: a weight is not finite or too large for the dtype, or the disk refuses.
    """
    subnetwork = jax.device_get(classifier.subnetwork)
    whole, masks = _leaves(subnetwork), trees.flatten(subnetwork.mask)
    tensors: dict[str, np.ndarray] = {"mapping": np.asarray(subnetwork.mapping, np.int32)}
    tensors |= {f"prompt/{name}": np.asarray(leaf) for name, leaf in trees.flatten(subnetwork.prompt).items()}
    rounded = dict(whole)
    for name, mask in masks.items():
        weights = np.asarray(whole.pop(f"params/{name}"))
        tensors[f"mask/{name}"] = np.frombuffer(zlib.compress(np.packbits(mask).tobytes(), 9), np.uint8)
        tensors[f"kept/{name}"] = _narrowed(name, weights[mask], dtype)
        rounded[f"params/{name}"] = _spread(mask, tensors[f"kept/{name}"])
    tensors |= {f"whole/{name}": np.asarray(leaf) for name, leaf in whole.items()}
    header = classifier.description.to_json() | {"shapes": {name: list(mask.shape) for name, mask in masks.items()}}
    header = files.plain(header)
    header["checksum"] = _checksum(header, tensors)
    files.write_whole(path, safetensors.numpy.save(formats.in_c_order(tensors), {_ABOUT: json.dumps(header)}))
    weights = jax.device_put(trees.unflatten(rounded)["params"])
    return dataclasses.replace(classifier, subnetwork=dataclasses.replace(classifier.subnetwork, weights=weights))


def read(path: Path, model: str = "") -> Classifier:
    """Reads a network that `write` wrote; its weights become float32.

    Args:
      path: the file. It is not trusted: everything in it is checked.
      model: the function that makes a network of one's own; see `deploy.load`.

    Returns:
      The network.

    Raises:
      UserError: the file is missing or damaged, or its tensors do not fit its description.
    """
    tensors = formats.read(path)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            header = json.loads((file.metadata() or {})[_ABOUT])
        intact = header.pop("checksum") == _checksum(header, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        intact = False
    if not intact:
        raise UserError(f"{path} is damaged, or no packed network: it does not match its checksum; export it again")
    try:
        return _classifier(Description.from_json(header, model), header.get("shapes"), tensors)
    except UserError as error:
        raise UserError(shorten(f"{path} does not hold what it says: {error}", LONGEST)) from error


def answers(path: Path, classifier: Classifier, squares: np.ndarray) -> np.ndarray:
    """Computes the logits of the network in a file.

    Args:
      path: the file.
      classifier: the network that it was made from.
      squares: uint8 [b, image_size, image_size, 3].

    Returns:
      float32 [b, t].
    """
    name = classifier.description.model
    return verifying.logits(read(path, name if models.is_own(name) else ""), squares)


def _classifier(description: Description, shapes: Any, tensors: Mapping[str, np.ndarray]) -> Classifier:
    groups: dict[str, dict[str, np.ndarray]] = {"mask": {}, "kept": {}, "whole": {}, "prompt": {}, "mapping": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind not in groups:
            raise UserError(f"it has a tensor {short(name)}")
        groups[kind][rest] = tensor
    expected = _expected(description, groups["whole"], groups["mapping"].get(""))
    masks = {name: _bits(name, bits, expected) for name, bits in groups["mask"].items()}
    if shapes != {name: list(mask.shape) for name, mask in masks.items()} or groups["kept"].keys() != masks.keys():
        raise UserError("masks, shapes and kept weights are not of the same layers")
    leaves = dict(groups["whole"])
    for name, mask in masks.items():
        kept = groups["kept"][name]
        if kept.shape != (np.count_nonzero(mask),) or kept.dtype not in DTYPES.values():
            raise UserError(f"the weights of {name} do not fit its mask")
        leaves[f"params/{name}"] = _spread(mask, kept)
    _check_leaves(leaves, expected)
    checks.check_prompt(description.prompt, groups["prompt"])
    variables = jax.device_put(trees.unflatten({name: leaves[name] for name in expected}))
    subnetwork = Subnetwork(
        weights=variables["params"],
        mask=jax.device_put(trees.unflatten(masks)),
        batch_stats=variables.get("batch_stats", {}),
        prompt=jax.device_put(groups["prompt"]),
        mapping=jax.device_put(groups["mapping"][""]),
    )
    return Classifier(description, subnetwork)


def _expected(description: Description, whole: Mapping[str, np.ndarray], mapping: np.ndarray | None) -> dict[str, Any]:
    """Shapes and dtypes of the network's variables by path."""
    head = whole.get(f"params/{models.HEAD}/bias")
    if head is None or mapping is None:
        raise UserError("it has no head, or no mapping")
    checks.check_mapping(mapping, head.size)
    side = description.input_size
    model = description.network(head.size).model
    return trees.flatten(initializing.shapes(model, image_size=side))


def _bits(name: str, packed: np.ndarray, expected: Mapping[str, Any]) -> np.ndarray:
    leaf = expected.get(f"params/{name}")
    if leaf is None or packed.dtype != np.uint8:
        raise UserError(f"the mask of {short(name)} does not fit the network")
    size = -(-leaf.size // 8)
    try:
        # At most one byte too many is decompressed, because a hostile file could grow without end.
        bits = np.frombuffer(zlib.decompressobj().decompress(packed.tobytes(), size + 1), np.uint8)
    except zlib.error as error:
        raise UserError(f"the mask of {name} cannot be read: {error}") from error
    if bits.size != size:
        raise UserError(f"the mask of {name} does not fit the network")
    return np.unpackbits(bits, count=leaf.size).astype(bool).reshape(leaf.shape)


def _check_leaves(leaves: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> None:
    def form(tree: Mapping[str, Any], name: str) -> str:
        return f"{tree[name].dtype} {list(tree[name].shape)}" if name in tree else "missing"

    for name in sorted(expected.keys() | leaves):
        if form(leaves, name) != form(expected, name):
            raise UserError(f"{short(name)} is {form(leaves, name)} in it, and {form(expected, name)} in the network")
        if not np.all(np.isfinite(leaves[name])):
            raise UserError(f"{name} has values that are not finite")


def _leaves(subnetwork: Subnetwork) -> dict[str, np.ndarray]:
    """All variables by path."""
    return trees.flatten({"params": subnetwork.weights, "batch_stats": subnetwork.batch_stats})


def _spread(mask: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The weights, float32: zero where they are not kept."""
    weights = np.zeros(mask.shape, np.float32)
    weights[mask] = kept.astype(np.float32)
    return weights


def _narrowed(name: str, kept: np.ndarray, dtype: str) -> np.ndarray:
    if not np.all(np.isfinite(kept)):
        raise UserError(f"the kept weights of {name} have values that are not finite")
    largest = np.max(np.abs(kept), initial=0)
    # Rounded, because a value just above the largest number of a dtype may become that number.
    with np.errstate(over="ignore"):
        fitting = [each for each, kind in DTYPES.items() if np.isfinite(largest.astype(kind).astype(np.float32))]
    if dtype not in fitting:
        # From the smallest file to the largest.
        wider = " or ".join(reversed(fitting))
        raise UserError(f"a weight of {name} is {largest:g}, which is too large for {dtype}; take {wider}")
    return kept.astype(DTYPES[dtype])


def _checksum(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    return f"{files.digest_json(header)} {files.digest_arrays(sorted(tensors.items()))}"


PACKED = Format(
    name="packed",
    meaning="the masked network small on disk, in one file: a bit a weight, and the weights that are kept",
    suffix=SUFFIX,
    write=write,
    answers=answers,
    options=(Option("dtype", "of the kept weights", tuple(DTYPES)),),
)
