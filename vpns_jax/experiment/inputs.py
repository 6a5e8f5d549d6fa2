"""The inputs of a run that others can change: data, weights, a mask, a network's code.

Each has a digest, so that a change is noticed.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpns_jax import data, files, models, trees
from vpns_jax.deploy import subnetworks
from vpns_jax.errors import UserError, short
from vpns_jax.experiment.config import Config
from vpns_jax.experiment.identity import PRETRAIN
from vpns_jax.models import hub, preprocessing
from vpns_jax.pruners import method

# The names of inputs in inputs.json and in errors.
DATA, WEIGHTS, PRETRAIN_DATA, SOURCE, MASK = "data", "weights", "pretraining data", "source network", "mask"
CODE = "network's code"


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of a run.

    Attributes:
      name: the value in the config, such as "folder:/my/images".
      digest: a digest of the content, which does not depend on where it is stored.
    """

    name: str
    digest: str


def of(config: Config) -> dict[str, Input]:
    """Finds all inputs that a config names, without touching a device.

    Args:
      config: a checked configuration.

    Returns:
      The inputs, by the names above.

    Raises:
      UserError: an input is missing or cannot be read.
    """
    identity = functools.partial(
        data.identity, options=config.data.decode_options(), data_dir=config.data.directory or None
    )
    inputs = {DATA: Input(config.data.name, identity(config.data.name))}
    if config.model.weights == PRETRAIN:
        inputs[PRETRAIN_DATA] = Input(config.pretrain.data, identity(config.pretrain.data))
    else:
        inputs[WEIGHTS] = _weights(config)
    code = models.own_code(config.model.name, **config.model.options)
    if code:
        inputs[CODE] = Input(config.model.name, files.digest_json([files.sha256(file) for file in code]))
    if any(method(name).given for name in config.methods):
        inputs[MASK] = mask(config)
    return inputs


def mask(config: Config) -> Input:
    """Finds the mask of method "transfer".

    Args:
      config: a checked configuration.

    Returns:
      The input.

    Raises:
      UserError: the file is missing or cannot be read.
    """
    path = Path(config.transferred_mask)
    return Input(config.transferred_mask, subnetworks.digest(path))


def compare(remembered: Mapping[str, Any], current: Mapping[str, Input], place: Path) -> None:
    """Checks that the inputs of a run are the same as when it began.

    Args:
      remembered: the inputs in the folder's inputs.json: dicts with the fields of `Input`, by name.
      current: the inputs now; one that the folder does not know is new, which is allowed.
      place: the folder.

    Raises:
      UserError: an input changed.
    """
    for what, now in current.items():
        before = remembered.get(what)
        if before is None or before["digest"] == now.digest:
            continue
        if before["name"] == now.name:
            change = f"its {what} {short(now.name, 100)} changed since it began"
        else:
            change = f"its {what} was {short(before['name'], 100)}, and {short(now.name, 100)} holds something else"
        raise UserError(f"--workdir {place}: {change}; put back what was there, or choose another --workdir")


def _weights(config: Config) -> Input:
    source = config.model.weights
    loaded = models.own_weights(config.model.name, **config.model.options) if source == "default" else None
    if loaded is not None:
        return Input(source, files.digest_arrays(sorted(trees.flatten(loaded).items())))
    path = hub.resolve(models.default_source(config.model.name) if source == "default" else source)
    # The files beside the weights decide how images are normalized.
    descriptions = [path.with_name(name) for name in preprocessing.FILES]
    try:
        digests = [files.sha256(file) for file in (path, *descriptions) if file.is_file() or file == path]
        return Input(source, digests[0] if len(digests) == 1 else files.digest_json(digests))
    except OSError as error:
        raise UserError(f"config.model.weights is {source!r}: {path} cannot be read: {error.strerror}") from error
