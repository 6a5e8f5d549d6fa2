"""Selection by sorting: a search with the same result as those of the library, in a program half as large.

Most of the tests' time is compiling. So tests of whole stages and cells, of granularities and of rules search by
sorting; other tests of tests/sparsity, the golden run and the runs in processes of their own have the library's
searches.
"""

import jax
import jax.numpy as jnp

from vpns_jax.sparsity.selection import search


def by_sorting(task: search.Task, arrays: list[jax.Array], k: jax.Array, start: search.Bracket) -> search.Bracket:
    """Finds the k-th smallest key as the library's searches do, see `search.by_platform`."""
    del start
    keys = jnp.concatenate([leaf.ravel() for leaf in task.keys(arrays)])
    key = jnp.sort(keys)[k - 1]
    return search.Bracket(key, key + 1, jnp.sum(keys < key, dtype=jnp.int32), jnp.sum(keys <= key, dtype=jnp.int32))


def replace_searches(monkeypatch) -> None:
    """Lets every platform's search sort."""
    for name in ("bisection", "bisection_by_rows", "interpolation"):
        monkeypatch.setattr(search, name, by_sorting)
