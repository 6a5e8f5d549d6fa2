"""Options: what a setting is, its default, what it means and what is allowed, all in the field of a dataclass.

    @dataclasses.dataclass(frozen=True)
    class Options:
        rounds: int = option(100, "How many rounds it takes.", Range(1, 10_000, "each is a pass over the network"))

        def check(self, path: str) -> None:
            ...  # What must hold between fields; raises `UserError`. Called once each field is right by itself.

`build` makes one of a tree of plain values, `check` says whether its values are allowed. Trees are built here and not
by dacite, which takes True for an int, leaves an int where a float belongs, says nothing of keys that are missing and
does not name the place of a wrong item; nor by ml_collections, whose dataclass flags check no types.
"""

import contextlib
import dataclasses
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from vpns_jax.errors import UserError, check_name, short

T = TypeVar("T")
# Of a tuple: each of them makes runs of its own.
MOST_ITEMS = 1000


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that are allowed.

    Attributes:
      least: the lower end.
      most: the upper end.
      why: the reason for the upper end, said to who goes beyond it.
      ends: "[]" if both ends are allowed, "(]" if the lower one is not, "[)" if the upper one is not, or "()".
      must: what to say instead of "it must be at least ...": a whole clause.
    """

    least: float
    most: float
    why: str
    ends: str = "[]"
    must: str = ""

    def check(self, value: float, found: str) -> None:
        """Raises `UserError`, which begins with `found`, unless `value` is allowed; nan is not."""
        above = value >= self.least if self.ends[0] == "[" else value > self.least
        below = value <= self.most if self.ends[1] == "]" else value < self.most
        if above and below:
            return
        if isinstance(value, float) and math.isnan(value):
            raise UserError(f"{found}; it must be a number")
        if self.must:
            raise UserError(f"{found}; {self.must}")
        if not above:
            raise UserError(f"{found}; it must be {'at least' if self.ends[0] == '[' else 'above'} {self.least:g}")
        most = f"{self.most:,}" if isinstance(self.most, int) else f"{self.most:g}"
        raise UserError(f"{found}; it must be {'at most' if self.ends[1] == ']' else 'below'} {most}: {self.why}")


# What a field allows: numbers in a range, some names (known only later, if they are a function's), or what a function
# of (value, path) does not refuse by a `UserError`.
Allowed = Range | tuple[str, ...] | Callable[[Any, str], None] | None


EPOCHS = Range(1, 100_000, "at a minute each they take ten weeks")


@dataclasses.dataclass(frozen=True)
class Option:
    """What a field says of itself; see `option`."""

    meaning: str
    allowed: Allowed
    former: str


def option(default: Any, meaning: str, allowed: Allowed = None, *, former: str = "") -> Any:
    """A field of an options dataclass.

    Args:
      default: its value where nothing else is said; a group's is an instance of its dataclass.
      meaning: one or two sentences for who sets it.
      allowed: of a number, a tuple's items or a name, what is allowed; None for whatever the type allows.
      former: a name that the key had before, which is accepted for one release.

    Returns:
      The field, for `dataclasses.dataclass`.
    """
    metadata = {"option": Option(meaning, allowed, former)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def described(kind: Any, prefix: str = "") -> Iterator[tuple[str, Option]]:
    """Every key of an options dataclass, by its dotted name, groups before what is in them."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield f"{prefix}{field.name}", field.metadata["option"]
        if dataclasses.is_dataclass(hints[field.name]):
            yield from described(hints[field.name], f"{prefix}{field.name}.")


def former_names(kind: Any) -> dict[str, str]:
    """The dotted names that keys had before, and what they are called now."""
    return {f"{key.rpartition('.')[0]}.{one.former}".lstrip("."): key for key, one in described(kind) if one.former}


@contextlib.contextmanager
def at(path: str) -> Iterator[None]:
    """Lets a `UserError` from within say which key it is about."""
    try:
        yield
    except UserError as error:
        raise error if str(error).startswith(path) else UserError(f"{path}: {error}") from error


def check(group: Any, path: str) -> None:
    """Raises `UserError`, one line that names the key, unless all values of `group` are allowed.

    Args:
      group: an instance of an options dataclass.
      path: what it is called, such as "config".
    """
    for field in dataclasses.fields(group):
        value, key, allowed = getattr(group, field.name), f"{path}.{field.name}", field.metadata["option"].allowed
        if not isinstance(value, tuple):
            _check_value(value, key, f"{key} is {short(value)}", allowed)
            continue
        if len(value) > MOST_ITEMS:
            raise UserError(f"{key} holds {len(value):,} values; at most {MOST_ITEMS:,} are allowed")
        for i, item in enumerate(value):
            name = f"{key}[{i}]" if dataclasses.is_dataclass(item) else key
            _check_value(item, name, f"{key} holds {short(item)}", allowed)
    if hasattr(group, "check"):
        group.check(path)


def _check_value(value: Any, path: str, found: str, allowed: Allowed) -> None:
    if dataclasses.is_dataclass(value):
        check(value, path)
    elif isinstance(allowed, Range):
        allowed.check(value, found)
    elif isinstance(allowed, tuple):
        with at(path):
            check_name(path.rpartition(".")[2], value, allowed)
    elif allowed is not None:
        with at(path):
            allowed(value, path)


def build(kind: type[T], tree: Any, path: str) -> T:
    """An options dataclass of a tree of plain values: every key once, none unknown, each of its type.

    Args:
      kind: the dataclass.
      tree: nested mappings.
      path: what it is called, such as "config".

    Returns:
      The instance, whose values `check` has not seen yet.

    Raises:
      UserError: one line that names the key.
    """
    return _build(kind, tree, path)


def _build(kind: Any, value: Any, path: str) -> Any:
    """`value` as an instance of `kind`: a dataclass, a tuple, a dict or a plain type."""
    if dataclasses.is_dataclass(kind):
        return _build_group(kind, value, path)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{path} is {short(value)}; it must be a tuple")
        items = _split(value) if arguments[0] is str else value
        return tuple(_build(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{path} is {short(value)}; it must be a dict")
        # None stands for what is not set.
        return {name: item for name, item in value.items() if item is not None}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        # Beyond what a float can hold it is infinite, which no range allows.
        return float(value) if abs(value) <= 2**1023 else math.inf if value > 0 else -math.inf
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{path} is {short(value)}; it must be of type {kind.__name__}")
    return value


def _split(values: typing.Sequence[Any]) -> list[Any]:
    """With "a,b" as two: ml_collections makes a tuple of one out of `--config.methods=a,b`. No name has a comma."""
    found: list[Any] = []
    for value in values:
        parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [value]
        found += [part for part in parts if part] if len(parts) > 1 else [value]
    return found


def _build_group(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise UserError(f"{path} is {short(value)}; it must be a group of keys")
    every = typing.get_type_hints(kind)
    value, hints = _renamed(kind, value, path), {field.name: every[field.name] for field in dataclasses.fields(kind)}
    for problem, keys in (
        ("unknown", [key for key in value if key not in hints]),
        ("missing", set(hints) - set(value)),
    ):
        if keys:
            listed = short(sorted(keys, key=str))
            raise UserError(f"{path} has {problem} keys {listed}; known: {', '.join(hints)}")
    made = {name: _build(hint, value[name], f"{path}.{name}") for name, hint in hints.items()}
    # What the dataclass itself refuses, it refuses without knowing its place.
    with at(path):
        return kind(**made)


def _renamed(kind: Any, tree: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """`tree` with keys under the names that they have now.

    A config that sets the former name on top of the defaults holds both; then the default gives way.
    """
    for field in dataclasses.fields(kind):
        former = field.metadata["option"].former
        if former and former in tree:
            if field.name in tree and tree[field.name] not in (field.default, tree[former]):
                raise UserError(f"{path} has {former}, the former name of {field.name}, beside it; keep {field.name}")
            tree = {name: item for name, item in tree.items() if name != former} | {field.name: tree[former]}
    return tree
