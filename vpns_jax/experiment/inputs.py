"""What a run reads that others can change: data, weights, a mask. Each has a digest, by which a change is noticed."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpns_jax import data, files, models
from vpns_jax.deploy import subnetworks
from vpns_jax.errors import UserError, short
from vpns_jax.experiment.config import Config
from vpns_jax.experiment.identity import PRETRAIN
from vpns_jax.models import hub
from vpns_jax.pruners import method

# By what each is called in inputs.json and in errors.
DATA, WEIGHTS, PRETRAIN_DATA, SOURCE, MASK = "data", "weights", "pretraining data", "source network", "mask"


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of a run.

    Attributes:
      name: as the config has it, such as "folder:/my/images".
      digest: of its content; the same wherever it lies.
    """

    name: str
    digest: str


def of(config: Config) -> dict[str, Input]:
    """All inputs that a config names, by what they are; touches no device.

    Args:
      config: a checked configuration.

    Raises:
      UserError: one of them cannot be had.
    """
    identity = functools.partial(
        data.identity, options=config.data.decode_options(), data_dir=config.data.directory or None
    )
    found = {DATA: Input(config.data.name, identity(config.data.name))}
    if config.model.weights == PRETRAIN:
        found[PRETRAIN_DATA] = Input(config.pretrain.data, identity(config.pretrain.data))
    else:
        found[WEIGHTS] = _weights(config)
    if any(method(name).given for name in config.methods):
        found[MASK] = mask(config)
    return found


def mask(config: Config) -> Input:
    """The mask that method transfer is given; raises `UserError` if there is none."""
    path = Path(config.transferred_mask)
    return Input(config.transferred_mask, subnetworks.digest(path))


def compare(found: Mapping[str, Any], wanted: Mapping[str, Input], place: Path) -> None:
    """Raises `UserError` unless the inputs of a run, as its folder remembers them, are those of today.

    Args:
      found: by what they are, `Input`s as JSON has them.
      wanted: those of today; one that the folder does not know is new, and welcome.
      place: the folder.
    """
    for what, now in wanted.items():
        before = found.get(what)
        if before is None or before["digest"] == now.digest:
            continue
        if before["name"] == now.name:
            change = f"its {what} {short(now.name, 100)} changed since it began"
        else:
            change = f"its {what} was {short(before['name'], 100)}, and {short(now.name, 100)} holds something else"
        raise UserError(f"--workdir {place}: {change}; put back what was there, or choose another --workdir")


def _weights(config: Config) -> Input:
    source = config.model.weights
    path = hub.resolve(models.default_source(config.model.name) if source == "default" else source)
    # What timm says beside them decides how inputs are normalized.
    described = path.with_name("config.json")
    try:
        parts = [files.sha256(one) for one in (path, described) if one.is_file() or one == path]
        return Input(source, parts[0] if len(parts) == 1 else files.digest_json(parts))
    except OSError as error:
        raise UserError(f"config.model.weights is {source!r}: {path} cannot be read: {error.strerror}") from error
