"""Fixtures of the tests of models."""

import dataclasses

import pytest

from vpns_jax.models.registry import ENTRIES, Entry


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """ViTs with two blocks: the full structure, but quick to trace."""
    for name in ("vit_ti32", "deit_ti16_distilled"):
        monkeypatch.setitem(ENTRIES, name, _with_depth(ENTRIES[name], 2))


def _with_depth(entry: Entry, depth: int) -> Entry:
    return dataclasses.replace(entry, architecture={**entry.architecture, "depth": depth})
