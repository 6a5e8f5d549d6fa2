"""The code of the documents runs, line by line, and does what stands beside it."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from vpns_jax import pruners, sparsity, trees

DOCS = Path(__file__).parent.parent / "docs"


def blocks(name):
    """The Python code of a document."""
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), flags=re.S)


@pytest.mark.slow
@pytest.mark.usefixtures("searched_by_sorting")
def test_the_page_on_your_own_loop_is_a_program(capsys):
    first, *rest = blocks("library.md")
    names = {}
    # The first block shows two lines of the second.
    assert first in rest[0]
    for number, block in enumerate(rest):
        exec(compile(block, f"library.md, block {number}", "exec"), names)
    assert sparsity.density(names["mask"]) == pytest.approx(0.2, abs=0.01)
    assert len(capsys.readouterr().out.split()) == 2


def rows():
    lines = (DOCS / "from_jaxpruner.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    return {row[0]: row[-1].strip("` |") for row in cells[2:] if row[-1].startswith("`")}


@pytest.fixture(scope="module")
def names():
    params = {
        "a": {"kernel": jax.random.normal(jax.random.key(0), (8, 16)), "bias": jnp.zeros(16)},
        "b": {"kernel": jax.random.normal(jax.random.key(1), (16, 4))},
    }

    def loss_fn(params, x):
        return jnp.mean((jnp.tanh(x @ params["a"]["kernel"]) @ params["b"]["kernel"] - 1) ** 2)

    made = {
        "params": params,
        "loss_fn": loss_fn,
        "batches": [jnp.ones((2, 8))],
        "key": jax.random.key(2),
        "tx": optax.adam(1e-3),
    }
    exec(blocks("from_jaxpruner.md")[0], made)
    return made


@pytest.mark.parametrize("row", rows())
def test_each_call_that_replaces_one_of_jaxpruner(row, names):
    code = rows()[row]
    result = eval(code, names)
    if isinstance(result, optax.GradientTransformationExtraArgs):
        result = sparsity.current_mask(result.init(names["params"]), names["params"])
    if isinstance(result, dict):
        leaves = trees.named_leaves(result)
        assert {"a/kernel", "b/kernel"} <= set(leaves)
        kept = sum(int((leaves[path] != 0).sum()) for path in ("a/kernel", "b/kernel"))
        density = 1 if "GradualMagnitude" in code or "prunable" in code else 0.5 if "0.5" in code else 0.2
        # 192 weights; where layers have densities of their own, 128 and 64 of them; four blocks of 16 in b.
        assert kept in (192 - int(192 * (1 - density)), 128 - int(128 * (1 - density)) + 64 - int(64 * (1 - density)))
    elif "with_largest" in code:
        assert jnp.isfinite(result(names["params"], names["batches"][0]))
    elif isinstance(result, sparsity.Pattern):
        # With the pattern of that row: 128 and 64 weights, of which a fifth are kept in each layer.
        mask = trees.named_leaves(pruners.magnitude(names["params"], 0.2, pattern=result))
        assert [int(mask[path].sum()) for path in ("a/kernel", "b/kernel")] == [128 - 102, 64 - 51]
    else:
        # Of 192 weights 153 are pruned.
        assert result == pytest.approx(39 / 192)


def test_every_published_behavior_has_a_row():
    known = ("uniform", "ERK", "N:M", "blocks", "static sparse", "straight-through", "SET", "RigL", "gradual magnitude")
    assert all(any(row.startswith(name) for row in rows()) for name in known)
