"""Duplicates: files with the same bytes, which are harmful in two splits or under two labels."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from vpns_jax.data.text import brief, printable


class Member(NamedTuple):
    """One image of a split: its path, its label, the digest of its bytes."""

    path: str
    label: int
    digest: str


def report(splits: Mapping[str, Sequence[Member]]) -> Iterator[str]:
    """Lines that count and name files with the same bytes.

    Args:
      splits: the members of each split.

    Yields:
      Up to three lines: about files with a copy under another label, files with a copy in another split, and files with
      a copy in the same split and class.
    """
    groups = collections.defaultdict(list)
    for split, members in splits.items():
        for member in members:
            groups[member.digest].append((split, member))
    mixed, across, within = [], [], []
    for group in groups.values():
        labels, places = {member.label for _, member in group}, {split for split, _ in group}
        if len(labels) > 1:
            mixed.append(group)
        if len(places) > 1:
            across.append(group)
        if len(labels) == len(places) == 1 < len(group):
            within.append(group)
    yield from _line(mixed, "have the bytes of a file with another label", lambda split, member: member.label)
    yield from _line(across, "have the bytes of a file in another split", lambda split, member: split)
    yield from _line(
        within, "have the bytes of another file of their class and split", lambda split, member: member.path
    )


_Group = list[tuple[str, Member]]


def _line(groups: list[_Group], what: str, differs: Callable[[str, Member], object]) -> Iterator[str]:
    pairs = []
    for (split, first), *others in groups[:3]:
        other = next(member for place, member in others if differs(place, member) != differs(split, first))
        pairs.append(f"{brief(printable(first.path))} = {brief(printable(other.path))}")
    if groups:
        more = f" and {len(groups) - 3} more" if len(groups) > 3 else ""
        yield f"{sum(map(len, groups))} files {what}: {', '.join(pairs)}{more}"
