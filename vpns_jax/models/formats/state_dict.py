"""Finds the state dict in a checkpoint, where training scripts also keep optimizers, epochs and options."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from vpns_jax.errors import several, shorten
from vpns_jax.models.formats.unpickler import DTYPES, Placeholder, StorageRecord, TensorRecord, refusal

# Keys under which a state dict may lie, in the order of preference. Averaged weights are preferred to raw ones, because
# their authors evaluate the averaged ones; timm does the same.
KEYS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema",
    "state_dict", "model_state_dict", "model", "net", "network", "weights", "params",
)  # fmt: skip
DEPTH = 3


@dataclasses.dataclass(frozen=True)
class StateDict:
    """A state dict.

    Attributes:
      records: its tensors by name. The types in them have been checked, their bounds have not.
      others: entries that are no tensors: their types by name.
      notes: which entry was chosen, for the user.
      key_used: whether `weights_key` named it.
    """

    records: dict[str, TensorRecord]
    others: dict[str, str]
    notes: tuple[str, ...]
    key_used: bool


def find(loaded: Any, weights_key: str = "") -> StateDict:
    """The state dict in a loaded checkpoint.

    Args:
      loaded: the unpickled value.
      weights_key: the entry to take, dotted where it is nested; "" takes the first of `KEYS`, or the only one. If
        there is no such entry, it is ignored, because it may be a prefix of the tensors' names.

    Returns:
      The state dict.

    Raises:
      ValueError: there is no state dict, or it is not clear which of several is meant.
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


# The functions below call `dict.items` and `dict.values`, because a pickle can give an OrderedDict attributes of such
# names.
def _state_dicts(loaded: dict[Any, Any], path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Dicts that hold weights, by dotted path. Of a dict and another inside it, the one with more weights counts.

    So a tensor beside the state dict, such as a best accuracy or the state of a random generator, does not hide it.
    """
    if id(loaded) in seen:
        return
    seen.add(id(loaded))
    inner = [
        nested
        for key, value in (dict.items(loaded) if depth else ())
        if isinstance(key, str) and isinstance(value, dict) and not _is_optimizer(key)
        for nested in _state_dicts(value, f"{path}.{key}" if path else key, depth - 1, seen)
    ]
    own = _weights(loaded)
    if own and all(_weights(value) <= own for _, value in inner):
        yield path, loaded
    else:
        yield from inner


def _weights(loaded: dict[Any, Any]) -> int:
    """The number of tensors in a dict with more than one element, so that an accuracy does not count."""
    records = (value for value in dict.values(loaded) if isinstance(value, TensorRecord))
    return sum(isinstance(x.size, tuple | list) and any(isinstance(n, int) and n > 1 for n in x.size) for x in records)


def _is_optimizer(key: str) -> bool:
    return "optim" in key.lower() or "scheduler" in key.lower()


def _choose(keys: list[str]) -> str:
    """The preferred one of several dotted keys."""
    if len(keys) == 1:
        return keys[0]
    for known in KEYS:
        for key in keys:
            if known in key.split("."):
                return key
    raise ValueError(f"holds several state dicts: {several(map(repr, keys))}; name one by model.weights_key")


def _checked(loaded: dict[Any, Any], *, notes: tuple[str, ...], key_used: bool) -> StateDict:
    """The tensors of a dict, after a check of the types in their records. Raises `ValueError` if there are none."""
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
        notes = (*notes, f"skipped entries that are no tensors: {counted}")
    return StateDict(records, others, notes, key_used)


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
