"""The state dict in what a checkpoint holds: training scripts put it beside optimizers, epochs and options."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from vpns_jax.errors import several, shorten
from vpns_jax.models.formats.unpickler import DTYPES, Placeholder, StorageRecord, TensorRecord, refusal

# Where a state dict may lie, in the order of preference: of averaged weights beside raw ones the averaged are what
# their authors evaluate, so they are taken, as timm does.
KEYS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema",
    "state_dict", "model_state_dict", "model", "net", "network", "weights", "params",
)  # fmt: skip
DEPTH = 3


@dataclasses.dataclass(frozen=True)
class Found:
    """A state dict.

    Attributes:
      records: its tensors by name, of types that have been checked, not yet within checked bounds.
      others: what stands there under a name and is no tensor, by name.
      notes: how it was found, for the user.
      key_used: whether `weights_key` named it.
    """

    records: dict[str, TensorRecord]
    others: dict[str, str]
    notes: tuple[str, ...]
    key_used: bool


def find(loaded: Any, weights_key: str = "") -> Found:
    """The state dict in a loaded checkpoint.

    Args:
      loaded: what the pickle was.
      weights_key: the entry to take, dotted where it is nested; "" takes the first of `KEYS`, or the only one.

    Returns:
      The state dict. If there is no such entry, as if none had been named: it may be part of the tensors' names.

    Raises:
      ValueError: there is none, or which of several is meant is not clear.
    """
    if not isinstance(loaded, dict):
        raise ValueError(f"holds a {type(loaded).__name__}, not a dict of tensors")
    nested = dict(_state_dicts(loaded, "", DEPTH, set()))
    if weights_key and (within := [key for key in nested if key == weights_key or key.startswith(f"{weights_key}.")]):
        key = _choose(within)
        return _checked(nested[key], notes=(f"took the weights under {key!r}",), key_used=True)
    if "" in nested or not nested:
        return _checked(loaded, notes=(), key_used=False)
    key = _choose(list(nested))
    rest = [repr(other) for other in nested if other != key]
    beside = f" (also there, for model.weights_key: {several(rest)})" if rest else ""
    return _checked(nested[key], notes=(f"took the weights under {key!r}{beside}",), key_used=False)


# Below by `dict.items` and `dict.values`: a pickle can give an OrderedDict attributes of such names.
def _state_dicts(loaded: dict[Any, Any], path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Dicts that hold tensors, by dotted path; nothing within such a dict is looked at."""
    if id(loaded) in seen:
        return
    seen.add(id(loaded))
    if any(isinstance(value, TensorRecord) for value in dict.values(loaded)):
        yield path, loaded
    elif depth:
        for key, value in dict.items(loaded):
            if isinstance(key, str) and isinstance(value, dict) and not _is_optimizer(key):
                yield from _state_dicts(value, f"{path}.{key}" if path else key, depth - 1, seen)


def _is_optimizer(key: str) -> bool:
    return "optim" in key.lower() or "scheduler" in key.lower()


def _choose(keys: list[str]) -> str:
    """The preferred of dotted keys."""
    if len(keys) == 1:
        return keys[0]
    for known in KEYS:
        for key in keys:
            if known in key.split("."):
                return key
    raise ValueError(f"holds several state dicts: {several(map(repr, keys))}; name one by model.weights_key")


def _checked(loaded: dict[Any, Any], *, notes: tuple[str, ...], key_used: bool) -> Found:
    """The tensors of a dict, their records' types checked. Raises `ValueError` if there are none."""
    records, others = {}, {}
    for name, value in dict.items(loaded):
        if not isinstance(name, str):
            raise ValueError(f"entry {_shown(name)} is no tensor; a plain state dict is expected")
        if isinstance(value, TensorRecord):
            _check_record(name, value)
            records[name] = value
        else:
            others[name] = value.asked if isinstance(value, Placeholder) else type(value).__name__
    if not records and others:
        name, value = next(iter(dict.items(loaded)))
        why = refusal(value.asked) if isinstance(value, Placeholder) else "a plain state dict is expected"
        whole = f"it is a whole {loaded.asked}, " if isinstance(loaded, Placeholder) else ""
        raise ValueError(f"{whole}entry {_shown(name)} is no tensor; {why}")
    if not records and isinstance(loaded, Placeholder):
        raise ValueError(
            f"holds a whole {loaded.asked}, not a state dict; save model.state_dict() ({refusal(loaded.asked)})"
        )
    if others:
        counted = several(f"{shorten(name, 30)!r} ({kind})" for name, kind in others.items())
        notes = (*notes, f"passed over what is no tensor: {counted}")
    return Found(records, others, notes, key_used)


def _check_record(name: str, tensor: TensorRecord) -> None:
    storage = tensor.storage
    if not isinstance(storage, StorageRecord) or storage.kind not in DTYPES or type(storage.key) is not str:
        raise ValueError(f"tensor {name!r} has no proper storage")
    if not isinstance(tensor.size, tuple | list) or not isinstance(tensor.stride, tuple | list):
        raise ValueError(f"tensor {name!r}: size and stride must be tuples")
    numbers = (storage.count, tensor.offset, *tensor.size, *tensor.stride)
    if any(type(n) is not int or n < 0 for n in numbers) or len(tensor.size) != len(tensor.stride):
        raise ValueError(f"tensor {name!r}: size, stride and offset must be integers >= 0")


def _shown(name: Any) -> str:
    return repr(shorten(str(name), 100)) if isinstance(name, str | int) else f"of type {type(name).__name__}"
