"""The code of README.md, library.md, from_jaxpruner.md and of augmentation in data.md runs, and does what it says."""

import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vpns_jax import pruners, sparsity, trees

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def blocks(name):
    """The Python code of a document."""
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), flags=re.S)


def test_the_readme_prunes_any_model():
    params = {"a": {"kernel": jax.random.normal(jax.random.key(0), (8, 16))}}

    def loss_fn(params, batch):
        return jnp.mean((batch @ params["a"]["kernel"] - 1) ** 2)

    names = {"params": params, "loss_fn": loss_fn, "batches": [jnp.ones((2, 8))]}
    exec(blocks(ROOT / "README.md")[0], names)
    # Of 128 weights 115 are pruned.
    assert int(names["mask"]["a"]["kernel"].sum()) == 13
    updates, _ = names["tx"].update(params, names["tx"].init(params), params)
    left = optax.apply_updates(params, updates)["a"]["kernel"]
    assert int(jnp.count_nonzero(left)) == 13


@pytest.mark.slow
def test_the_readme_uses_a_network_and_a_prompt_alone():
    names = {}
    # A smaller network and smaller images, on which nothing but the time depends.
    code = blocks(ROOT / "README.md")[1].replace("224", "32").replace("resnet18", "resnet10")
    exec(code, names)
    assert sparsity.density(names["mask"]) == pytest.approx(0.1, abs=1e-6)
    assert names["logits"].shape == (1, 1000)
    assert jnp.isfinite(names["logits"]).all()


def test_the_page_on_data_augments():
    """Its block on resizing. The others need data sets, or show what a user writes."""
    [code] = [block for block in blocks("data.md") if "augment." in block]
    large = np.full((2, 36, 36, 3), 51, np.uint8)
    names = {"large": large, "key": jax.random.key(0), "dataset": SimpleNamespace(flip=True)}
    exec(code, names)
    np.testing.assert_array_equal(names["crops"], large[:, :32, :32])
    np.testing.assert_allclose(names["y"], np.full((2, 64, 64, 3), 0.2), rtol=1e-6)


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
