"""The notebook: its code compiles, and its config is valid."""

import json
from pathlib import Path

from vpns_jax.experiment import config

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "vpns.ipynb"


def code_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_its_code_compiles():
    cells = code_cells()
    assert len(cells) == 5
    for source in cells:
        plain = "\n".join(line for line in source.splitlines() if not line.startswith("%"))
        compile(plain, "cell", "exec")


def test_its_config_is_one(monkeypatch):
    """Executes the cell without the run itself."""
    (source,) = [source for source in code_cells() if "config.parse" in source]
    names = {}
    exec(source.split("startup.prepare()")[0], names)
    assert isinstance(names["parsed"], config.Config)
    assert names["parsed"].densities == (0.1,)


def test_it_was_saved_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
