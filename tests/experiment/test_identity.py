"""The keys of a config that decide the numbers of a cell, one by one."""

import pytest

from configs import quickstart
from vpns_jax.experiment import config
from vpns_jax.experiment.identity import identity
from vpns_jax.pruners import METHODS


def tree(**changes):
    """Makes a config as JSON with some keys changed, such as `prune__epochs=2`."""
    made = config.parse(quickstart.get_config().to_dict()).to_json()
    for path, value in changes.items():
        *groups, key = path.split("__")
        branch = made
        for group in groups:
            branch = branch[group]
        branch[key] = value
    return made


FREE = {
    "name": "another",
    "methods": ["imp"],
    "densities": [0.3],
    "seeds": [1],
    "mesh__fsdp": 2,
    "checkpoint_every_epochs": 77,
    "checkpoint_every_steps": 77,
    "fast_compile": True,
    "data__name": "folder:/elsewhere",
    "data__directory": "/elsewhere",
    "data__workers": 7,
    "pretrain__data": "folder:/elsewhere",
    "transfer__mask": "/elsewhere",
    "tuning__seed": 5,
}


@pytest.mark.parametrize("key", FREE)
def test_what_changes_no_number_is_free(key):
    assert identity(tree(**{key: FREE[key]}), METHODS) == identity(tree(), METHODS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "methods"),
    [
        ("prune__epochs", 99, METHODS),
        ("data__budget_gib", 99.0, METHODS),
        ("mapping__kind", "random", METHODS),
        ("model__options", {"width": 0.5}, METHODS),
        ("pretrain__epochs", 99, METHODS),
        ("model__weights", "/a/file", METHODS),
        ("scoring__batches", 99, ("snip", "fisher", "grasp", "snip+prompt")),
        ("synflow__rounds", 99, ("synflow",)),
        ("imp__drop", 0.9, ("imp", "imp+posthoc")),
        ("bip__gamma", 9.0, ("bip",)),
    ],
)
def test_what_changes_numbers_counts_for_the_methods_that_read_it(key, value, methods):
    before, after = tree(), tree(**{key: value})
    for name in (*METHODS, *methods):
        changed = identity(after, [name]) != identity(before, [name])
        assert changed == (name in methods), name


def test_a_file_of_weights_may_lie_elsewhere_and_then_nothing_is_pretrained():
    first, second = tree(model__weights="/a/file"), tree(model__weights="hf://a/b", pretrain__epochs=99)
    assert identity(first, METHODS) == identity(second, METHODS)


def test_a_key_of_no_known_kind_counts():
    """A key that is added to the config later must be added here, too."""
    assert identity(tree() | {"later": {"key": 1}}, ["dense"]) != identity(tree(), ["dense"])


def test_grids_of_a_sweep_count():
    grids = [{"methods": [], "key": "bip.gamma", "values": [1.0, 2.0]}]
    assert identity(tree(tuning__grids=grids), METHODS) != identity(tree(), METHODS)
    assert identity(tree(tuning__grids=grids, tuning__seed=1), METHODS) != identity(tree(tuning__grids=grids), METHODS)
