"""Masks that move: exact counts at every step, zeros where pruned, and one program for all steps."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import sorting
from vpns_jax import models, sparsity
from vpns_jax.errors import UserError
from vpns_jax.models import wiring
from vpns_jax.sparsity import SET, GradualMagnitude, Moves, Pattern, RigL
from vpns_jax.sparsity.rules import Now

UNIFORM = Pattern(allocation="uniform")
KERNELS = ("a", "b")
MOVES = Moves(begin=1, end=8, every=3)


def weights():
    a, b, x = jax.random.split(jax.random.key(0), 3)
    params = {
        "a": {"kernel": jax.random.normal(a, (6, 10)), "bias": jnp.ones(10)},
        "b": {"kernel": jax.random.normal(b, (10, 4))},
    }
    return params, jax.random.normal(x, (8, 6))


def loss(params):
    hidden = jnp.tanh(X @ params["a"]["kernel"] + params["a"]["bias"][None])
    return jnp.mean((hidden @ params["b"]["kernel"] - 1) ** 2)


@pytest.fixture(scope="module", autouse=True)
def _sorted():
    """Every rule selects in the same way, and other files of this folder test how."""
    with pytest.MonkeyPatch.context() as patch:
        sorting.replace_searches(patch)
        yield


PARAMS, X = jax.jit(weights)()
GRADIENT = jax.jit(jax.grad(loss))


def history(tx, steps):
    """The weights, dense gradients, masks and states before the first step and after each."""
    programs = []

    @jax.jit
    def step(params, state):
        programs.append(1)
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return params, jax.grad(loss)(params), sparsity.current_mask(state, params), state

    state = tx.init(PARAMS)
    rows = [(PARAMS, GRADIENT(PARAMS), sparsity.current_mask(state, PARAMS), state)]
    for _ in range(steps):
        rows.append(step(rows[-1][0], rows[-1][3]))
    assert len(programs) == 1
    return jax.device_get(rows)


def kept(mask):
    return [int(mask[name]["kernel"].sum()) for name in KERNELS]


def assert_zero_where_pruned(rows):
    for params, _, mask, _ in rows[1:]:
        for name in KERNELS:
            assert np.all(params[name]["kernel"][~mask[name]["kernel"]] == 0)


@pytest.fixture(scope="module")
def magnitude():
    return history(sparsity.gradual(optax.adam(1e-2), 0.2, GradualMagnitude(MOVES)), 10)


@pytest.fixture(scope="module")
def rigl():
    rule = RigL(Moves(end=10, every=3), share=0.5)
    return history(sparsity.gradual(optax.adamw(1e-2), 0.2, rule, pattern=UNIFORM), 12)


def test_the_density_follows_the_cubic_schedule(magnitude):
    # Moves come at steps 1, 4, 7 and 8: at 0, 3/7, 6/7 and all of the way. Of 100 weights int(100 (1 - d)) are pruned.
    densities = [0.2 + 0.8 * (1 - x) ** 3 for x in (0, 3 / 7, 6 / 7, 1)]
    counts = [100 - int(100 * (1 - d)) for d in densities]
    assert [sum(kept(mask)) for _, _, mask, _ in magnitude] == [100] * 5 + [counts[1]] * 3 + [counts[2]] + [20] * 2
    assert_zero_where_pruned(magnitude)


def test_what_was_pruned_stays_pruned_and_the_smallest_go(magnitude):
    for before, after in itertools.pairwise(magnitude):
        pairs = [(before[2][name]["kernel"], after[2][name]["kernel"]) for name in KERNELS]
        assert all(np.all(old | ~new) for old, new in pairs)
        gone = np.concatenate(
            [np.abs(before[0][n]["kernel"])[o & ~k] for n, (o, k) in zip(KERNELS, pairs, strict=True)]
        )
        left = np.concatenate([np.abs(before[0][n]["kernel"])[k] for n, (_, k) in zip(KERNELS, pairs, strict=True)])
        assert gone.size == 0 or gone.max() <= left.min()


def test_outside_of_jit_the_move_is_compiled_once_too(magnitude):
    traced = []

    class Counted(GradualMagnitude):
        def move(self, pattern, now, amount):
            traced.append(1)
            return super().move(pattern, now, amount)

    tx = sparsity.gradual(optax.adam(1e-2), 0.2, Counted(MOVES))
    params, state = PARAMS, tx.init(PARAMS)
    for _, _, mask, _ in magnitude[1:7]:
        updates, state = tx.update(GRADIENT(params), state, params)
        params = optax.apply_updates(params, updates)
        assert kept(sparsity.current_mask(state, params)) == kept(mask)
    assert len(traced) == 1


def test_the_others_train_on(magnitude):
    assert not np.array_equal(magnitude[-1][0]["a"]["bias"], magnitude[-2][0]["a"]["bias"])
    final = magnitude[-1][2]["a"]["kernel"]
    assert np.all(magnitude[-1][0]["a"]["kernel"][final] != magnitude[-2][0]["a"]["kernel"][final])


def test_moments_of_pruned_weights_are_cleared(magnitude, rigl):
    for rows in (magnitude, rigl):
        for _, _, mask, state in rows[1:]:
            for moment in (state.inner[0].mu, state.inner[0].nu):
                assert all(np.all(moment[name]["kernel"][~mask[name]["kernel"]] == 0) for name in KERNELS)


def test_rigl_never_changes_the_count(rigl):
    assert {tuple(kept(mask)) for _, _, mask, _ in rigl} == {(12, 8)}
    assert_zero_where_pruned(rigl)


@pytest.mark.parametrize("step", [0, 3, 6])
def test_rigl_drops_the_smallest_and_grows_where_the_dense_gradient_is_largest(rigl, step):
    (params, gradient, old, _), (after, _, new, _) = rigl[step], rigl[step + 1]
    exchanged = 0
    for name in KERNELS:
        before, now = old[name]["kernel"], new[name]["kernel"]
        w, g = (np.abs(tree[name]["kernel"]) for tree in (params, gradient))
        count = int(0.5 / 2 * (1 + np.cos(np.pi * step / 10)) * before.sum())
        ranked = np.argsort(np.where(before, w, np.inf), axis=None)
        survivors = before.copy()
        survivors.flat[ranked[:count]] = False
        grown = np.argsort(np.where(survivors, -np.inf, g), axis=None)[g.size - count :]
        expected = survivors.copy()
        expected.flat[grown] = True
        assert np.array_equal(now, expected)
        # What grows starts at zero.
        assert np.all(after[name]["kernel"][now & ~before] == 0)
        exchanged += (now & ~before).sum()
    assert exchanged > 0 or step == 6


def test_between_moves_and_after_the_last_the_mask_rests(rigl):
    masks = [np.concatenate([mask[name]["kernel"].ravel() for name in KERNELS]) for _, _, mask, _ in rigl]
    moved = [step for step, (a, b) in enumerate(itertools.pairwise(masks)) if not np.array_equal(a, b)]
    # At step 6 the smallest weights have the largest gradients, and grow again. After that, less than one would go.
    assert moved == [0, 3]


@pytest.mark.slow
def test_set_grows_at_random_and_starts_from_a_given_mask():
    start = {
        name: {"kernel": mask}
        for name, mask in sparsity.topk_mask({name: PARAMS[name]["kernel"] for name in KERNELS}, 0.3).items()
    }
    rule = SET(Moves(end=4, every=1), share=0.5, mask=start)
    rows = history(sparsity.gradual(optax.sgd(0.1), 0.3, rule), 6)
    assert all(np.array_equal(rows[0][2][name]["kernel"], start[name]["kernel"]) for name in KERNELS)
    assert {sum(kept(mask)) for _, _, mask, _ in rows} == {30}
    assert_zero_where_pruned(rows)
    grown = [rows[i + 1][2]["a"]["kernel"] & ~rows[i][2]["a"]["kernel"] for i in range(2)]
    assert all(new.any() for new in grown)
    assert not np.array_equal(*grown)


@pytest.mark.slow
def test_whole_blocks_move_together():
    pattern = Pattern(sparsity.parse_granularity("block:2x2"), "erk")
    rows = history(sparsity.gradual(optax.sgd(0.1), 0.4, RigL(Moves(end=4, every=2)), pattern=pattern), 3)
    for _, _, mask, _ in rows:
        blocks = mask["a"]["kernel"].reshape(3, 2, 5, 2)
        assert np.all(blocks == blocks[:, :1, :, :1])
    assert len({tuple(kept(mask)) for _, _, mask, _ in rows}) == 1


def test_only_what_is_prunable_is_masked():
    some = functools.partial(sparsity.prunable, exclude=["b"])
    tx = sparsity.gradual(optax.sgd(0.1), 0.5, SET(MOVES), prunable=some)
    mask = sparsity.current_mask(optax.MultiSteps(tx, 2).init(PARAMS), PARAMS)
    assert mask["b"]["kernel"] is None
    assert mask["a"]["bias"] is None
    assert mask["a"]["kernel"].sum() == 30


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Moves(end=5, begin=5), "needs 0 <= begin < end"),
        (lambda: RigL(MOVES, share=1.0), "share is 1.0"),
        (lambda: sparsity.gradual(optax.sgd(1), 0.0, GradualMagnitude(MOVES)).init(PARAMS), "density is 0.0"),
        (lambda: sparsity.gradual(optax.sgd(1), 0.01, RigL(MOVES)).init(PARAMS), "layers would be empty"),
        (
            lambda: sparsity.gradual(
                optax.sgd(1), 0.5, RigL(MOVES), pattern=Pattern(sparsity.parse_granularity("2:4"))
            ).init(PARAMS),
            "RigL changes counts, and granularity 2:4 has one: use keep_mask",
        ),
        (
            lambda: sparsity.gradual(
                optax.sgd(1), 0.5, RigL(MOVES, mask={"a": {"kernel": jnp.ones((6, 10), bool)}})
            ).init(PARAMS),
            "the first mask lacks b/kernel",
        ),
        (
            lambda: sparsity.gradual(
                optax.sgd(1), 0.5, SET(MOVES, mask=jax.tree.map(lambda leaf: leaf > 0, PARAMS))
            ).init(PARAMS),
            "the first mask prunes 55, density 0.5 with allocation global prunes 50: make it with the same",
        ),
        (lambda: sparsity.current_mask(optax.sgd(1).init(PARAMS), PARAMS), "holds no mask"),
    ],
)
def test_mistakes_are_one_line(make, line):
    with pytest.raises(UserError, match=line):
        make()


@pytest.mark.slow
def test_whole_channels_move_with_all_that_belongs_to_them():
    channels = models.Channels((models.Writer("a/kernel", bias="a/bias"),), (models.Reader("b/kernel"),))
    pattern = sparsity.ChannelPattern(channels=(channels,))
    some = functools.partial(sparsity.prunable, exclude=["b"])
    rule = GradualMagnitude(Moves(end=2, every=1))
    rows = history(sparsity.gradual(optax.sgd(0.1), 0.3, rule, pattern=pattern, prunable=some), 3)
    # Densities 1, 0.3 + 0.7 / 8 and 0.3 of ten channels.
    assert [int(mask["a"]["bias"].sum()) for _, _, mask, _ in rows] == [10, 10, 4, 3]
    for params, _, mask, _ in rows[1:]:
        assert np.array_equal(mask["a"]["kernel"], np.broadcast_to(mask["a"]["bias"], (6, 10)))
        assert np.all(params["a"]["bias"][~mask["a"]["bias"]] == 0)
        assert np.all(params["a"]["kernel"][~mask["a"]["kernel"]] == 0)


def test_set_starts_and_grows_groups_with_the_same_chance_whatever_their_size():
    kernels = {"small": {"kernel": jnp.ones((1, 1, 16, 16))}, "large": {"kernel": jnp.ones((3, 3, 16, 16))}}
    pattern, rule = Pattern(sparsity.parse_granularity("kernel")), SET(Moves(end=1), share=0.9)
    start = rule.start(pattern, kernels, 0.1)
    amount = jax.tree.map(lambda rows: rows[0], rule.amounts(pattern, kernels, 0.1))
    sizes = jax.tree.map(lambda keep: keep.astype(jnp.float32), start)
    after = rule.move(pattern, Now(start, sizes, sizes, jnp.int32(0)), amount)
    # Of 512 groups 52 are kept, 26 +- 3.4 of each size, and all but 6 of them are exchanged.
    for mask in (start, after):
        assert 12 < int(mask["small"]["kernel"].sum()) < 40
        assert sum(int(leaf["kernel"][0, 0].sum()) for leaf in mask.values()) == 52


def a_channels(activation, norm=""):
    writer = models.Writer("a/kernel", bias="a/bias", norm=norm)
    return (models.Channels((writer,), (models.Reader("b/kernel"),), activation=activation),)


@pytest.mark.parametrize("rule", [RigL, SET])
def test_channels_are_exchanged_only_if_they_learn_from_zero(rule):
    some = functools.partial(sparsity.prunable, exclude=["b"])
    for channels in (a_channels(wiring.relu), a_channels(wiring.keeps_zero), a_channels(wiring.gelu, norm="bn")):
        pattern = sparsity.ChannelPattern(channels=channels)
        tx = sparsity.gradual(optax.sgd(0.1), 0.5, rule(MOVES), pattern=pattern, prunable=some)
        with pytest.raises(
            UserError, match=f"{rule.__name__} cannot exchange the channels of a/kernel: .* no gradient"
        ):
            tx.init(PARAMS)
    pattern = sparsity.ChannelPattern(channels=a_channels(wiring.gelu))
    state = sparsity.gradual(optax.sgd(0.1), 0.5, rule(MOVES), pattern=pattern, prunable=some).init(PARAMS)
    assert int(sparsity.current_mask(state, PARAMS)["a"]["bias"].sum()) == 5


def test_channels_of_different_cost_are_not_exchanged():
    budget = sparsity.BudgetPattern(channels=a_channels(wiring.gelu), terms=(sparsity.Term("a/kernel", "", 1),))
    some = functools.partial(sparsity.prunable, exclude=["b"])
    tx = sparsity.gradual(optax.sgd(0.1), 0.5, RigL(MOVES), pattern=budget, prunable=some)
    with pytest.raises(UserError, match="RigL exchanges equal numbers of channels, which differ in cost"):
        tx.init(PARAMS)


def test_a_first_mask_keeps_whole_groups():
    pattern = Pattern(sparsity.parse_granularity("block:2x2"))
    mask = sparsity.topk_mask(sparsity.prunable(PARAMS), 0.5)
    with pytest.raises(UserError, match="the first mask does not keep whole groups of granularity block:2x2: a/kernel"):
        sparsity.gradual(optax.sgd(1), 0.5, SET(MOVES, mask=mask), pattern=pattern).init(PARAMS)
