"""Options: a dataclass whose fields hold each setting's type, default, meaning and allowed values.

    @dataclasses.dataclass(frozen=True)
    class Options:
        rounds: int = option(100, "How many rounds it takes.", Range(1, 10_000, "each is a pass over the network"))

        def check(self, path: str) -> None:
            ...  # Optional: raises `UserError` if fields do not go together. Called after each field was checked.

`build` makes an instance from a tree of plain values, and `check` checks its values. We do not use dacite, because it
takes True for an int, leaves an int where a float belongs, does not report missing keys, and does not say which item is
wrong; nor ml_collections, whose dataclass flags do not check types.
"""

import contextlib
import dataclasses
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from vpns_jax.errors import UserError, check_name, short

T = TypeVar("T")
# The most items of a tuple. Each item means more runs.
MOST_ITEMS = 1000


@dataclasses.dataclass(frozen=True)
class Range:
    """A range of allowed numbers.

    Attributes:
      least: the lower end.
      most: the upper end.
      why: the reason for the upper end, for the error about a larger number.
      ends: "[]" if both ends are allowed, "(]" if the lower one is not, "[)" if the upper one is not, or "()".
      must: a clause for errors, in place of "it must be at least ...".
    """

    least: float
    most: float
    why: str
    ends: str = "[]"
    must: str = ""

    def check(self, value: float, found: str) -> None:
        """Checks that a number is allowed; nan never is.

        Args:
          value: the number.
          found: the beginning of the error, such as "config.seed is -1".

        Raises:
          UserError: the number is not allowed.
        """
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


# The allowed values of a field: numbers in a range, some names, or values for which a function of (value, path) does
# not raise `UserError`.
Allowed = Range | tuple[str, ...] | Callable[[Any, str], None] | None


EPOCHS = Range(1, 100_000, "at a minute each they take ten weeks")


@dataclasses.dataclass(frozen=True)
class Option:
    """A field's metadata; see `option`."""

    meaning: str
    allowed: Allowed
    former: str


def option(default: Any, meaning: str, allowed: Allowed = None, *, former: str = "") -> Any:
    """A field of an options dataclass.

    Args:
      default: its default value; for a group of options, an instance of the group's dataclass.
      meaning: one or two sentences for the user who sets it.
      allowed: the allowed values, or for a tuple its allowed items; None allows all values of the type.
      former: the key's former name, which is accepted for one release.

    Returns:
      The field, for `dataclasses.dataclass`.
    """
    metadata = {"option": Option(meaning, allowed, former)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def described(kind: Any, prefix: str = "") -> Iterator[tuple[str, Option]]:
    """Lists all keys of an options dataclass, a group before the keys in it.

    Args:
      kind: the dataclass.
      prefix: a prefix for all names.

    Yields:
      Dotted names and the options' metadata.
    """
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield f"{prefix}{field.name}", field.metadata["option"]
        if dataclasses.is_dataclass(hints[field.name]):
            yield from described(hints[field.name], f"{prefix}{field.name}.")


def former_names(kind: Any) -> dict[str, str]:
    """The former dotted names of keys, with their present names."""
    return {f"{key.rpartition('.')[0]}.{item.former}".lstrip("."): key for key, item in described(kind) if item.former}


@contextlib.contextmanager
def at(path: str) -> Iterator[None]:
    """Adds a key's path to a `UserError` that is raised in the block.

    Args:
      path: the key's dotted path.

    Yields:
      Nothing.

    Raises:
      UserError: the block raised one.
    """
    try:
        yield
    except UserError as error:
        raise error if str(error).startswith(path) else UserError(f"{path}: {error}") from error


def check(group: Any, path: str) -> None:
    """Checks all values of a group of options.

    Args:
      group: an instance of an options dataclass.
      path: the group's name in errors, such as "config".

    Raises:
      UserError: a value is not allowed; the error names the key.
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
    """Makes an instance of an options dataclass from a tree of plain values.

    Args:
      kind: the dataclass.
      tree: nested mappings with all keys of the dataclass.
      path: the tree's name in errors, such as "config".

    Returns:
      The instance. Its values still have to be checked by `check`.

    Raises:
      UserError: a key is unknown or missing, or a value has the wrong type; the error names the key.
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
        # None means that a key is not set.
        return {name: item for name, item in value.items() if item is not None}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        # An int too large for a float becomes infinite, which no range allows.
        return float(value) if abs(value) <= 2**1023 else math.inf if value > 0 else -math.inf
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{path} is {short(value)}; it must be of type {kind.__name__}")
    return value


def _split(values: typing.Sequence[Any]) -> list[Any]:
    """Splits "a,b" at its comma: ml_collections reads `--config.methods=a,b` as a tuple of one. No name has a comma."""
    items: list[Any] = []
    for value in values:
        parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [value]
        items += [part for part in parts if part] if len(parts) > 1 else [value]
    return items


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
    # The dataclass itself may refuse values, without knowing their path.
    with at(path):
        return kind(**made)


def _renamed(kind: Any, tree: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """`tree` with former names of keys replaced by the present ones.

    A config that sets a former name holds the present name's default, too; the value under the former name wins.
    """
    for field in dataclasses.fields(kind):
        former = field.metadata["option"].former
        if former and former in tree:
            if field.name in tree and tree[field.name] not in (field.default, tree[former]):
                raise UserError(f"{path} has {former}, the former name of {field.name}, beside it; keep {field.name}")
            tree = {name: item for name, item in tree.items() if name != former} | {field.name: tree[former]}
    return tree
