"""Reads a finished network, given only its path, and writes one to its two files."""

from pathlib import Path

from vpns_jax.deploy import checks, subnetworks
from vpns_jax.deploy.classifier import Classifier
from vpns_jax.deploy.description import Description
from vpns_jax.deploy.exports import packed
from vpns_jax.errors import LONGEST, UserError, short, shorten

SUFFIX, TASK = ".safetensors", ".task.safetensors"


def load(path: str | Path, description: Description | None = None, *, model: str = "") -> Classifier:
    """Reads a finished network.

    Args:
      path: the path of `CELL.safetensors`, with or without the suffix, beside `CELL.task.safetensors`; or the path of
        `CELL.packed.safetensors`, a single file.
      description: the network's description, only for files of an older version, which do not hold it.
      model: for a network of one's own, the function that makes it: `module:function` or `file.py:function`. The file's
        own word is not taken for it, because making the network runs that code. The values of its options do come from
        the file, so the function must not trust them: never unpickle, import or open what an option names.

    Returns:
      The network.

    Raises:
      UserError: the path names no file; a file is missing or damaged; or the description is neither in the file nor
        given, or both.
    """
    path = file_of(path)
    if path.name.endswith(packed.SUFFIX):
        if description is not None:
            raise _described_twice(path)
        return packed.read(path, model)
    header = subnetworks.about(path)
    if "label_names" in header:
        if description is not None:
            raise _described_twice(path)
        description = _read(path, header, model)
    elif description is None:
        raise UserError(
            f"{path} was written by an older version and does not say its model and options, prompt, image_size, mean, "
            "std and classes; give them as load(path, deploy.Description(...)), and deploy.save writes them with it"
        )
    subnetwork = subnetworks.load(path, description.model, image_size=description.input_size, **description.options)
    try:
        checks.check_prompt(description.prompt, subnetwork.prompt)
        return Classifier(description, subnetwork)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def save(path: str | Path, classifier: Classifier) -> None:
    """Writes a finished network; `load` reads it.

    Args:
      path: the file to write, with or without ".safetensors"; `.task.safetensors` is written beside it.
      classifier: the network.

    Raises:
      UserError: the path names no file or a packed one, or the disk refuses.
    """
    description = classifier.description
    subnetworks.save(new_file(path), description.model, classifier.subnetwork, description.to_json())


def file_of(path: str | Path) -> Path:
    """The `CELL.safetensors` of a network.

    Args:
      path: its path, its path without the suffix, or `CELL.task.safetensors`.

    Returns:
      The path.

    Raises:
      UserError: the path names no file, as "." does not.
    """
    path = Path(path)
    if not path.name:
        raise UserError(f"{short(str(path))} names no file; a network is CELL.safetensors")
    name = path.name.removesuffix(TASK).removesuffix(SUFFIX)
    return path.with_name(f"{name}{SUFFIX}")


def new_file(path: str | Path) -> Path:
    """The `CELL.safetensors` to write a network to, for `save`.

    Args:
      path: see `file_of`.

    Returns:
      The path.

    Raises:
      UserError: the path names no file, or `load` would take the file for a packed one.
    """
    path = file_of(path)
    if path.name.endswith(packed.SUFFIX):
        raise UserError(
            f"{path} is the name of a packed network, which is a single file; name another, or write it by export "
            "with format packed"
        )
    return path


def _read(path: Path, header: dict, model: str) -> Description:
    try:
        return Description.from_json(header, model)
    except UserError as error:
        raise UserError(shorten(f"{path} has no usable description: {error}", LONGEST)) from error


def _described_twice(path: Path) -> UserError:
    return UserError(f"{path} says itself what it is; leave the description out")
