"""What a run may not change once it has begun: the keys of its config that decide the numbers of a cell.

All others may change between one start and the next: more methods, densities and seeds, which add cells to the same
folder, and what only says where, how often and on which machine something is done.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from vpns_jax.pruners import OPTIONS, method

# Keys that change no number. Of the places among them it counts what lies there, wherever that is: see `inputs`.
_FREE = frozenset(
    {
        "name",
        "methods",
        "densities",
        "seeds",
        "mesh",
        "checkpoint_every_epochs",
        "checkpoint_every_steps",
        "data.name",
        "data.directory",
        "data.workers",
        "model.weights",
        "pretrain.data",
        "transfer.mask",
    }
)
PRETRAIN = "pretrain"


def identity(config: Mapping[str, Any], methods: Iterable[str]) -> dict[str, Any]:
    """The part of a config that decides the numbers of cells.

    Args:
      config: as JSON has it: nested dicts.
      methods: those of the cells.

    Returns:
      Leaves by dotted key, such as "prune.epochs".
    """
    # Of the groups that pruners declare, those that these methods read.
    read = {options.group for name in methods if (options := method(name).options)}
    flat = _flat(config)
    trained_here = flat.get("model.weights") == PRETRAIN
    kept = {}
    for key, value in flat.items():
        group = key.split(".", 1)[0]
        if key in _FREE or group in _FREE or (group in OPTIONS and group not in read):
            continue
        if (group == PRETRAIN and not trained_here) or (group == "tuning" and not config["tuning"].get("grids")):
            continue
        kept[key] = value
    return kept | {"model.weights": PRETRAIN if trained_here else "from a file"}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
