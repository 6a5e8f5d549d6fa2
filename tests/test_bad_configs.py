"""Random bad configurations: each ends in one short line, none in a traceback."""

import copy
import random

import pytest

from configs import default
from vpns_jax.errors import LONGEST, UserError
from vpns_jax.experiment import config

COUNT, SEED = 1500, 0

DEEP: list = []
for _ in range(5000):
    DEEP = [DEEP]

# Values that no key accepts.
NEVER = (
    float("nan"),
    float("inf"),
    -float("inf"),
    -1e300,
    1e300,
    10**30,
    -(10**30),
    2**63,
    10**5000,
    -5,
    True,
    None,
    b"bytes",
    {"a": {"b": 1}},
    {1: 2},
    DEEP,
    object(),
    1j,
    "",
    "\0",
    "a\nb",
    "\ud800",
    "x" * 10**5,
    "../x",
    "~nosuchuser/x",
    "nothing",
    ("nothing", "nothing"),
    ((),),
    (0.5, float("nan")),
    (10**30,),
    (-5,),
    ({},),
    tuple(range(2000)),
)
# Values that some keys accept: an empty text or tuple, a name, a path, a glob, or options of the model.
TAKEN = {
    "name": ("nothing", "x"),
    "model.weights": ("", "nothing", "../x"),
    "model.options": ({1: 2},),
    "model.weights_key": ("any",),
    "model.ignore": ("any",),
    "model.dont_load": ("any",),
    "model.prune_include": ("any",),
    "model.prune_exclude": ("any",),
    "data.directory": ("", "nothing", "../x"),
    "transfer.mask": ("", "nothing", "../x"),
    "prompt.parametrization": ("",),
    "target": ("",),
    "pretrain.data": ("any",),
}


def keys(tree, prefix=()):
    """Lists the paths of all groups and leaves, including the model's options."""
    for name, value in tree.items():
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from keys(value, (*prefix, name))


def changed(tree, path, change):
    """Copies `tree` and calls `change` with the group that holds the last key of `path`, and with that key."""
    tree = copy.deepcopy(tree)
    branch = tree
    for name in path[:-1]:
        branch = branch[name]
    change(branch, path[-1])
    return tree


def bad_trees():
    """Makes COUNT pairs (change, tree): one key has a bad value, is missing, has another name, or appears twice."""
    tree, draw = default.get_config().to_dict(), random.Random(SEED)
    paths = [path for path in keys(tree) if path[:2] != ("model", "options") or len(path) == 2]
    options = [path for path in keys(tree) if path[:2] == ("model", "options") and len(path) == 3]
    for _ in range(COUNT):
        path, value = draw.choice(paths), draw.choice(NEVER)
        kind = draw.choice(("value", "value", "value", "value", "missing", "unknown", "option"))
        if kind == "value" and not takes(".".join(path), value):
            yield (path, value), changed(tree, path, lambda group, key, value=value: group.update({key: value}))
        elif kind == "missing":
            yield (path, kind), changed(tree, path, lambda group, key: group.pop(key))
        elif kind == "unknown":
            name = draw.choice(("x", path[-1] + "s_", "", "x" * 1000, "a\nb", "\ud800", 3, None))
            yield (path, name), changed(tree, path, lambda group, key, name=name: group.update({name: 1}))
        elif kind == "option" and value is not None:
            path = draw.choice(options)
            yield (path, value), changed(tree, path, lambda group, key, value=value: group.update({key: value}))


def takes(key, value):
    """Returns whether a key is one of the few that accept a value."""
    taken = TAKEN.get(key, ())
    return (isinstance(value, tuple | str) and "any" in taken) or any(
        type(accepted) is type(value) and accepted == value for accepted in taken
    )


@pytest.mark.slow
def test_each_ends_in_one_short_line():
    accepted, crashed, long = [], [], []
    for done, tree in bad_trees():
        try:
            config.parse(tree)
            accepted.append(done)
        except UserError as error:
            line = str(error)
            if len(line) > LONGEST or not line.isprintable() or "config" not in line:
                long.append((done[0], line))
        except Exception as error:
            crashed.append((done[0], repr(error)[:200]))
    assert (crashed, accepted, long) == ([], [], [])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("imp.drop", 1e-17, "config.imp.drop"),
        ("imp.drop", 1 - 1e-16, None),
        ("data.batch_size", 2**20, "config.data.batch_size is 1048576"),
        ("imp.drop", 1e-4, "config.imp.drop is 0.0001: density 0.1 takes 23,025 rounds of 30 epochs"),
        ("synflow.rounds", 10**9, "config.synflow.rounds"),
        ("prompt.stage", "nowhere", "prune, retrain, both"),
        ("seeds", tuple(range(1000)), None),
        ("seeds", tuple(range(1001)), "config.seeds holds 1,001 values"),
    ],
)
def test_what_would_take_more_than_there_can_be(key, value, words):
    tree = default.get_config().to_dict()
    tree["prompt"] |= {"canvas_size": 1024}
    tree["methods"] = ("imp",)
    tree = changed(tree, key.split("."), lambda group, name: group.update({name: value}))
    if words is None:
        config.parse(tree)
        return
    with pytest.raises(UserError) as caught:
        config.parse(tree)
    assert words in str(caught.value)


def test_a_grid_of_cells_that_nobody_can_run():
    tree = default.get_config().to_dict()
    tree |= {"densities": tuple((i + 1) / 1000 for i in range(500)), "seeds": tuple(range(500))}
    with pytest.raises(UserError, match="make 250,000 cells; at most 100,000"):
        config.parse(tree)
