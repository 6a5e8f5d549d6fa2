"""Finds the layout of a file by its tensors' names, after removing the prefixes that training scripts add to them."""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence

from vpns_jax.errors import UserError, several
from vpns_jax.models.layouts import Rule

# Modules that only wrap another: those of DataParallel, torch.compile, FSDP and activation checkpointing.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# The counter of torch's AveragedModel, which is no part of any network.
COUNTERS = ("n_averaged",)


@dataclasses.dataclass(frozen=True)
class Fit:
    """The layout that fits a file best, and what it calls the file's tensors.

    Attributes:
      layout: the layout's name.
      rules: its rules.
      names: for each name in the file, the layout's name; a name that the layout does not know stays as it is.
      notes: which prefixes were removed and which names skipped, for the user.
    """

    layout: str
    rules: list[Rule]
    names: dict[str, str]
    notes: tuple[str, ...]


def fit(layouts: Sequence[tuple[str, list[Rule]]], file_names: Iterable[str], weights_key: str = "") -> Fit:
    """The layout that shares the most names with a file, after a common prefix is removed.

    Args:
      layouts: names and rules of layouts, the preferred layout first.
      file_names: the names of the file's tensors.
      weights_key: the prefix of the names to take, where the file holds several networks; "" for all names.

    Returns:
      The best layout and the renamed tensors.

    Raises:
      UserError: the file holds several networks, or none under `weights_key`; or two names become one.
    """
    notes: list[str] = []
    names = {name: name for name in file_names if name not in COUNTERS}
    names = _renamed(names, _unwrap, "took wrappers such as {example} off {count} names", notes)
    if weights_key:
        names = _under(names, f"{weights_key}.")
        notes.append(f"took the {len(names)} names under {weights_key!r}")
    layout, rules, prefix = _best(layouts, list(names.values()))
    wanted = {rule.name for rule in rules}
    ancestors = [prefix[: match.end()] for match in re.finditer(r"[./]", prefix)][::-1]

    def strip(name: str) -> str:
        for ancestor in ancestors:
            rest = name.removeprefix(ancestor)
            if rest != name and rest in wanted:
                return rest
        return name

    names = _renamed(names, strip, f"took the prefix {prefix!r} off {{count}} of {len(names)} names", notes)
    return Fit(layout, rules, names, tuple(notes))


def _unwrap(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _renamed(names: dict[str, str], rename: Callable[[str], str], note: str, notes: list[str]) -> dict[str, str]:
    """Renames the names, and adds to `notes` if any changes. Raises `UserError` if two names become one."""
    renamed = {original: rename(name) for original, name in names.items()}
    changed = [original for original in names if renamed[original] != names[original]]
    if not changed:
        return names
    by_name = {name: original for original, name in renamed.items()}
    for original, name in renamed.items():
        if by_name[name] != original:
            raise UserError(f"both {original!r} and {by_name[name]!r} of the file become {name!r}; remove one of them")
    example = next((repr(f"{part}.") for part in WRAPPERS if part in changed[0].split(".")), "")
    notes.append(note.format(count=len(changed), example=example))
    return renamed


def _under(names: dict[str, str], prefix: str) -> dict[str, str]:
    """The names that have the prefix, with it removed. Raises `UserError` if there are none."""
    chosen = {original: name.removeprefix(prefix) for original, name in names.items() if name.startswith(prefix)}
    if not chosen:
        tops = sorted({name.partition(".")[0] for name in names.values()})
        raise UserError(f"weights_key {prefix[:-1]!r} names nothing in the file, which has: {several(tops, limit=8)}")
    return chosen


def _best(layouts: Sequence[tuple[str, list[Rule]]], names: Sequence[str]) -> tuple[str, list[Rule], str]:
    """The layout and prefix that fit the most names; the prefix is "" unless at least half of the layout fits."""
    best = (-1, *layouts[0], [""])
    for layout, rules in layouts:
        counts = _prefixes({rule.name for rule in rules}, names)
        most = max(counts.values())
        plain = counts[""] == most or 2 * most < len(rules)
        prefixes = [""] if plain else [prefix for prefix, count in counts.items() if count == most]
        most = counts[""] if plain else most
        if most > best[0]:
            best = (most, layout, rules, prefixes)
    _, layout, rules, prefixes = best
    if len(prefixes) > 1:
        shown = several(repr(prefix.rstrip("./")) for prefix in sorted(prefixes))
        raise UserError(f"the file holds a network under each of {shown}; name one by model.weights_key")
    return layout, rules, prefixes[0]


def _prefixes(wanted: set[str], names: Sequence[str]) -> collections.Counter[str]:
    """For each prefix (empty, or ending in a dot or a slash), the number of names that are it plus a wanted name."""
    counts = collections.Counter({"": 0})
    for name in names:
        for start in (0, *(match.end() for match in re.finditer(r"[./]", name))):
            if name[start:] in wanted:
                counts[name[:start]] += 1
    return counts
