"""A whole stage: its rows, its checkpoints, and that it resumes where it stopped, with resident and streamed data."""

import contextlib
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training import tiny
from vpns_jax.data.source import ArraySource
from vpns_jax.errors import UserError
from vpns_jax.parallel import sharding
from vpns_jax.training.batches import Streamed
from vpns_jax.training.checkpoints import Checkpoints
from vpns_jax.training.epochs import Within
from vpns_jax.training.recorder import Progress, Recorder
from vpns_jax.training.runner import OpenCheckpoints, Runner
from vpns_jax.training.writers import MetricLog

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("searched_by_sorting")]

EPOCHS, ITERATIONS = 4, tiny.IMAGES // tiny.BATCH


class StoppedError(Exception):
    """Simulates a kill."""


class StoppingRecorder(Recorder):
    """Stops the stage when it has recorded a number of epochs, before the checkpoint of the last one is written."""

    stop_after = None

    def epoch(self, row):
        super().epoch(row)
        if row["epoch"] == self.stop_after:
            raise StoppedError


def streamed(data):
    return Streamed(ArraySource(np.asarray(data.images), np.asarray(data.labels)), tiny.SIZE, workers=0, flip=True)


class StoppingCheckpoints(Checkpoints):
    """Stops the stage right after the checkpoint of step `stop_after` is written."""

    stop_after = None

    def save(self, epoch, tree, **options):
        super().save(epoch, tree, **options)
        if epoch == self.stop_after:
            raise StoppedError


@contextlib.contextmanager
def within(folder, every, stop_after):
    if not every:
        yield None
        return
    with StoppingCheckpoints(folder / "within", "config", keep_best=False) as checkpoints:
        checkpoints.stop_after = stop_after
        yield Within(checkpoints, every)


def run(folder, begun, *, train=None, val=None, remap=False, stop_after=None, save_every=2, every=0, stop_at_step=None):
    """Runs or resumes the stage that `begun` makes; returns its state and rows."""
    recorder = StoppingRecorder("cell", MetricLog(folder / "metrics.jsonl"), folder / "tensorboard", Progress(EPOCHS))
    recorder.stop_after = stop_after
    mesh = sharding.make_mesh(tiny.BATCH, jax.devices()[:1])
    runner = Runner(
        train=tiny.split() if train is None else train,
        val=tiny.split(seed=1) if val is None else val,
        directory=folder,
        fingerprint="config",
        keys={"stage": jax.random.key(5)},
        recorder=recorder,
        remap=remap,
        save_every=save_every,
    )
    with (
        jax.set_mesh(mesh),
        Checkpoints(folder / "checkpoints", "config") as checkpoints,
        within(folder, every, stop_at_step) as inner,
    ):
        # Where the first state lies decides which program runs, so it is made on the mesh as in a cell.
        stage, state = begun()
        try:
            state = runner.run("stage", stage, state, EPOCHS, OpenCheckpoints(checkpoints, inner))
        finally:
            recorder.close()
    return jax.device_get(state), [
        {name: value for name, value in row.items() if "seconds" not in name} for row in recorder.rows()
    ]


def test_rows_tell_the_story(tmp_path):
    begun = tiny.begin
    state, rows = run(tmp_path, begun)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["step"] for row in rows] == [ITERATIONS * epoch for epoch in (1, 2, 3, 4)]
    assert int(state.step) == ITERATIONS * EPOCHS
    assert {row["stage"] for row in rows} == {"stage"}
    # 68 weights, half of them pruned.
    assert all(row["density"] == 0.5 for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows == [json.loads(json.dumps(row)) for row in rows]


REFERENCE = functools.partial(tiny.begin, protocol="reference")
WEIGHTS = functools.partial(tiny.begin, "weights", optimizers={"weights": tiny.optimizer(learning_rate=0.3)})


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The state and the rows of a stage that nothing stopped, with streamed data or without."""

    @functools.cache
    def go(stream):
        data = tiny.split(augmented=True)
        data = streamed(data) if stream else data
        return run(tmp_path_factory.mktemp("unbroken"), REFERENCE, train=data, remap=True)

    return go


# Before the first checkpoint, after one, and after the last epoch.
@pytest.mark.parametrize(("stop_after", "stream"), [(1, True), (3, True), (3, False), (4, False)])
def test_stopped_and_resumed_is_bit_for_bit_unbroken(tmp_path, stop_after, stream, unbroken):
    begun, expected = REFERENCE, unbroken(stream)
    data = tiny.split(augmented=True)
    data = streamed(data) if stream else data
    with pytest.raises(StoppedError):
        run(tmp_path / "broken", begun, train=data, remap=True, stop_after=stop_after)
    state, rows = run(tmp_path / "broken", begun, train=data, remap=True)
    assert tiny.same(state, expected[0])
    assert rows == expected[1]


# Before the first checkpoint at the end of an epoch, in the middle of an epoch, and at its end, before its row.
@pytest.mark.parametrize("step", [2, 8, 6])
def test_stopped_within_an_epoch_it_goes_on_with_the_very_next_batch(tmp_path, step, monkeypatch, unbroken):
    begun, data, expected = REFERENCE, streamed(tiny.split(augmented=True)), unbroken(True)
    with pytest.raises(StoppedError):
        run(tmp_path / "broken", begun, train=data, remap=True, every=2, stop_at_step=step)
    began = []
    begin = Streamed.train_batches
    monkeypatch.setattr(
        Streamed, "train_batches", lambda *args, **options: began.append(options["step"]) or begin(*args, **options)
    )
    state, rows = run(tmp_path / "broken", begun, train=data, remap=True, every=2)
    assert began == [step]
    assert tiny.same(state, expected[0])
    assert rows == expected[1]


def test_within_an_epoch_also_where_no_epoch_is_better_than_the_first(tmp_path):
    """With checkpoints within epochs, every end of an epoch is saved, or skipped epochs would lose rows."""
    data, val = streamed(tiny.split()), tiny.split(seed=1)
    # Of equal images the same share is always right.
    always = {"train": data, "val": val.replace(images=jnp.full_like(val.images, 100)), "save_every": 9}
    expected = run(tmp_path / "unbroken", WEIGHTS, **always)
    assert len({row["val_prompted"] for row in expected[1]}) == 1
    with pytest.raises(StoppedError):
        run(tmp_path / "broken", WEIGHTS, every=2, stop_at_step=8, **always)
    state, rows = run(tmp_path / "broken", WEIGHTS, every=2, **always)
    assert tiny.same(state, expected[0])
    assert rows == expected[1]


def test_a_finished_stage_is_not_run_again(tmp_path):
    begun = tiny.begin
    state, _ = run(tmp_path, begun)
    log = MetricLog(tmp_path / "metrics.jsonl")
    # Later stages stay, too.
    log.append({"cell": "cell", "stage": "retrain", "epoch": 1, "step": 3})
    again, _ = run(tmp_path, begun, stop_after=1)
    assert tiny.same(again, state)
    assert [row["stage"] for row in log.rows()] == ["stage"] * 4 + ["retrain"]


def test_iterative_mapping_follows_the_network(tmp_path):
    fixed_mapping, _ = run(tmp_path / "a", tiny.begin)
    iterative, _ = run(tmp_path / "b", tiny.begin, remap=True)
    np.testing.assert_array_equal(fixed_mapping.mapping, [4, 0, 2])
    assert len(set(iterative.mapping.tolist())) == tiny.CLASSES
    assert iterative.mapping.tolist() != [4, 0, 2]


def test_streams_and_arrays_train_alike(tmp_path):
    """Streamed data are shuffled differently, but both stages must learn the task."""
    for name, data in (("arrays", tiny.split()), ("stream", streamed(tiny.split()))):
        _, rows = run(tmp_path / name, WEIGHTS, train=data)
        assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]


def wild_prompt():
    return tiny.begin(optimizers={"prompt": tiny.optimizer(learning_rate=3e38, momentum=0.0)})


def wild_weights():
    """Steps so large that no float holds them."""
    stage, state = WEIGHTS()
    momentum = jax.tree.map(lambda x: jnp.full_like(x, jnp.inf) if x.dtype == jnp.float32 else x, state.opt_state)
    return stage, dataclasses.replace(state, opt_state=momentum)


@pytest.mark.parametrize(
    ("begun", "message"),
    [
        (wild_prompt, "stage stage, epoch 1: prompt are no longer finite"),
        (wild_weights, "stage stage, epoch 1: .*weights"),
    ],
)
def test_a_loss_that_is_not_finite_ends_the_stage_in_one_line(tmp_path, begun, message):
    with pytest.raises(UserError, match=f"{message}.*lower the learning rate") as caught:
        run(tmp_path, begun)
    assert "\n" not in str(caught.value)
    # No checkpoint is left from which a later run could continue.
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_any_optax_transformation_can_be_handed_in(tmp_path):
    """An optax transformation gives the same result as the equal optimizer by name."""
    named = {"weights": tiny.optimizer("adamw", 0.01, decay="none"), "prompt": tiny.optimizer(learning_rate=0.0)}
    mine = {"weights": optax.adamw(0.01, weight_decay=0.0), "prompt": optax.set_to_zero()}
    states = [
        run(tmp_path / name, functools.partial(tiny.begin, "weights", optimizers=optimizers))[0]
        for name, optimizers in (("named", named), ("mine", mine))
    ]
    assert tiny.same(states[0].learned, states[1].learned)
