"""Exports finished networks in formats that other programs run. Each format has a module, and an entry in `FORMATS`.

A file is first written under another name, then read and run. It gets its name only if its logits are those of the
network that it should hold: the one given, with its weights rounded if the format or its `dtype` rounds them.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from vpns_jax import files
from vpns_jax.deploy import verifying
from vpns_jax.deploy.classifier import Classifier
from vpns_jax.deploy.exports.formats import Format, Option
from vpns_jax.deploy.exports.onnx_file import ONNX
from vpns_jax.deploy.exports.packed import PACKED
from vpns_jax.deploy.exports.stablehlo import STABLEHLO
from vpns_jax.deploy.exports.state_dict import SAFETENSORS
from vpns_jax.deploy.exports.timm_folder import TIMM
from vpns_jax.errors import UserError, check_name
from vpns_jax.storage import storage_errors

__all__ = ["FORMATS", "Exported", "Format", "Option", "check", "export"]

FORMATS = {each.name: each for each in (ONNX, STABLEHLO, TIMM, SAFETENSORS, PACKED)}


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file or folder that was written.

    Attributes:
      path: the file or folder.
      bytes: its size.
      difference: the difference of its logits to those of the network it was made from.
    """

    path: Path
    bytes: int
    difference: verifying.Difference


def export(classifier: Classifier, path: str | Path, *, format: str, **options: str) -> Exported:
    """Writes a network in a format, and checks the file's logits on random images; see above.

    Args:
      classifier: the network.
      path: the file or folder, which must not exist; its parent must.
      format: a key of `FORMATS`.
      **options: options of the format, such as `dtype="float16"`.

    Returns:
      What was written.

    Raises:
      UserError: there is no such format or option, the path is taken, the format cannot hold the network, the file
        does not answer as the network does, or the disk refuses.
    """
    chosen, values = check(path, format=format, **options)
    path = Path(path)
    # The suffix stays at the end, because readers tell formats by it.
    unfinished = path.with_name(f"unfinished-{path.name}")
    files.check_free(unfinished)
    squares = verifying.images(classifier)
    try:
        with storage_errors(path.parent):
            held = chosen.write(classifier, unfinished, **values)
            answers = chosen.answers(unfinished, held, squares)
            verifying.check(verifying.compare(answers, verifying.logits(held, squares)), held, f"the {format} file")
            difference = verifying.compare(answers, verifying.logits(classifier, squares))
            size = _size(unfinished)
            unfinished.rename(path)
    finally:
        _remove(unfinished)
    return Exported(path, size, difference)


def check(path: str | Path, *, format: str, **options: str) -> tuple[Format, dict[str, Any]]:
    """Checks the arguments of `export`, before a network is read.

    Args:
      path: the file or folder to write.
      format: a key of `FORMATS`.
      **options: options of the format.

    Returns:
      The format, and a value for each of its options.

    Raises:
      UserError: there is no such format or option, or the path is taken, has no folder, or ends otherwise than the
        format's files do, or as packed ones do.
    """
    check_name("format", format, tuple(FORMATS))
    chosen, path = FORMATS[format], Path(path)
    values = chosen.read_options(options)
    files.check_free(path)
    if not path.name.endswith(chosen.suffix) or path.name == chosen.suffix:
        raise UserError(f"{path} has another suffix than files of format {format}, which is {chosen.suffix}")
    if chosen is not PACKED and path.name.endswith(PACKED.suffix):
        raise UserError(f"{path} ends in {PACKED.suffix}, which is the suffix of format {PACKED.name}; name another")
    return chosen, values


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else (path,)))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
