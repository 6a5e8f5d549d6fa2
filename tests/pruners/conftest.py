import pytest

from tests.pruners import cells


@pytest.fixture(autouse=True)
def _world(monkeypatch):
    with cells.world(monkeypatch):
        yield
