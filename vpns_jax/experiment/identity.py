"""The identity of a run: the keys of its config that decide the numbers of a cell, and so must not change.

All other keys may change when a run is resumed: methods, densities and seeds, which add cells to the same folder, and
keys that only say where, how often or on which machine something is done.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from vpns_jax.pruners import OPTIONS, method

# Keys that change no number. Some name places; there the contents count, wherever they are stored: see `inputs`.
_FREE = frozenset(
    {
        "name",
        "methods",
        "densities",
        "seeds",
        "mesh",
        "checkpoint_every_epochs",
        "checkpoint_every_steps",
        "fast_compile",
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
    """Selects the part of a config that decides the numbers of cells.

    Args:
      config: the configuration as nested dicts, as in config.json.
      methods: the methods of the cells.

    Returns:
      Values by dotted key, such as "prune.epochs".
    """
    # The groups of pruners' options that these methods read.
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
