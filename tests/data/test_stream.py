"""Batches from the host: their contents, stopping and resuming, and the transfer to the devices."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.data.shades import build_cifar10
from vpns_jax import data
from vpns_jax.data import augment
from vpns_jax.data.plan import TrainPlan
from vpns_jax.data.source import ArraySource
from vpns_jax.data.transfer import DeviceStream
from vpns_jax.errors import UserError

N = 23
ROOT = Path(__file__).parent.parent.parent


def make_source(size: int = 16) -> ArraySource:
    """N images of one shade each; the label is three times the shade."""
    shades = np.arange(N, dtype=np.uint8)[:, None, None, None]
    return ArraySource(shades.repeat(size, 1).repeat(size, 2).repeat(3, 3), 3 * np.arange(N, dtype=np.int32))


SOURCE = make_source()


def train(source: ArraySource = SOURCE, **options) -> data.Stream:
    defaults = {"image_size": 16, "batch_size": 4, "augmented": (False, True), "seed": 3}
    return data.train_stream(source, **{**defaults, **options})


def shades(batch) -> list[list[int]]:
    """The shades of each pass's images, which identify the images."""
    return [np.asarray(images)[:, 0, 0, 0].tolist() for images, _ in batch]


def test_batches_are_the_plan_decoded_at_each_passes_size():
    plan = TrainPlan(N, 4, 2, seed=3)
    with train() as stream:
        for step, batch in enumerate(itertools.islice(stream, 12)):
            (plain, plain_labels), (large, large_labels) = batch
            assert plain.shape == (4, 16, 16, 3)
            assert large.shape == (4, 18, 18, 3)
            assert plain.dtype == large.dtype == np.uint8
            assert plain_labels.dtype == np.int32
            assert shades(batch) == [indices.tolist() for indices in plan.indices(step)]
            np.testing.assert_array_equal(plain_labels, 3 * plain[:, 5, 5, 1].astype(int))
            np.testing.assert_array_equal(large_labels, 3 * large[:, 5, 5, 1].astype(int))


@pytest.mark.slow
def test_workers_change_nothing():
    with train() as stream, train(workers=2) as shared, train(threads=1) as alone:
        expected = [shades(batch) for batch in itertools.islice(stream, 9)]
        assert [shades(batch) for batch in itertools.islice(shared, 9)] == expected
        assert [shades(batch) for batch in itertools.islice(alone, 9)] == expected


# Five batches make an epoch: these are in the middle of one, at its end, and before the first.
@pytest.mark.parametrize("stop", [0, 5, 7])
def test_a_resumed_stream_goes_on_with_the_very_next_batch(stop):
    with train() as stream:
        expected = [shades(batch) for batch in itertools.islice(stream, stop + 4)]
    with train() as first:
        for _ in range(stop):
            next(first)
        state = json.dumps(first.get_state())
    with train() as second:
        next(second)  # wherever it was before
        second.set_state(json.loads(state))
        assert [shades(batch) for batch in itertools.islice(second, 4)] == expected[stop:]
        assert second.get_state()["next_batch"] == stop + 4


def test_a_closed_stream_goes_on_where_it_was():
    with train() as stream:
        expected = [shades(next(stream)) for _ in range(4)]
    stream = train()
    assert [shades(next(stream)) for _ in range(2)] == expected[:2]
    stream.close()
    assert [shades(next(stream)) for _ in range(2)] == expected[2:]
    stream.close()


@pytest.mark.slow
def test_resume_from_records_on_disk_with_workers(tmp_path):
    build_cifar10(tmp_path)
    options = {"image_size": 24, "batch_size": 8, "augmented": (True,), "seed": 1}

    def stream(workers: int) -> data.Stream:
        sources = data.open_sources("cifar10", data_dir=str(tmp_path), val_fraction=0.25)
        return data.train_stream(sources.train, **options, workers=workers)

    with stream(0) as whole:
        expected = [next(whole) for _ in range(8)]
    with stream(1) as first:
        for _ in range(5):
            next(first)
        state = first.get_state()
    with stream(0) as second:
        second.set_state(state)
        for want in expected[5:]:
            for actual, wanted in zip(next(second)[0], want[0], strict=True):
                np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 5}, r"'batch_size': 4.*'batch_size': 5"),
        ({"seed": 4}, r"'seed': 3.*'seed': 4"),
        ({"source": ArraySource(SOURCE.images[:-1], SOURCE.labels[:-1])}, f"{N}.*{N - 1}"),
    ],
)
def test_another_streams_state_is_refused(changed, message):
    state = train().get_state()
    with pytest.raises(UserError, match=message):
        train(**changed).set_state(state)


def test_processes_see_their_shares():
    with train() as whole, train(process=0, processes=2) as left, train(process=1, processes=2) as right:
        for _ in range(7):
            halves = zip(shades(next(left)), shades(next(right)), strict=True)
            assert [first + second for first, second in halves] == shades(next(whole))


def test_evaluation_counts_every_image_once():
    for processes in (1, 2):
        seen = []
        for process in range(processes):
            options = {"image_size": 8, "batch_size": 10, "process": process, "processes": processes}
            with data.eval_stream(SOURCE, **options) as stream:
                batches = list(stream)
            assert len(batches) == 3
            for images, labels, weights in batches:
                assert images.shape == (10 // processes, 8, 8, 3)
                np.testing.assert_array_equal(3 * images[:, 0, 0, 0].astype(int), labels)
                seen += images[weights == 1, 0, 0, 0].tolist()
        assert sorted(seen) == list(range(N))


class Broken:
    """A source that fails at one image."""

    labels = SOURCE.labels

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int, /):
        if index == 7:
            raise UserError("image 7 cannot be read")
        return SOURCE[index]


def test_an_error_comes_through():
    with data.eval_stream(Broken(), image_size=8, batch_size=4) as stream:
        next(stream)
        with pytest.raises(UserError, match="image 7 cannot be read"):
            next(stream)


# In a separate process, because Python reports leaked memory at its end.
PROGRAM = """
import sys
import numpy as np
from vpns_jax import data
from vpns_jax.errors import UserError

class Broken:
    labels = np.arange(64, dtype=np.int32)

    def __len__(self):
        return 64

    def __getitem__(self, index):
        if index == 20:
            raise UserError("image 20 cannot be read")
        return np.zeros((64, 64, 3), np.uint8), index

def main():
    with data.eval_stream(Broken(), image_size=64, batch_size=4, workers=2) as stream:
        kept = []
        try:
            kept.extend(stream)
        except UserError as error:
            # The batches before it are still held when the program ends.
            sys.exit(f"error: {error}")

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_an_unreadable_image_leaves_one_line_and_no_shared_memory(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == "error: image 20 cannot be read\n"


@pytest.fixture
def sharding():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    return NamedSharding(mesh, PartitionSpec("data"))


def test_batches_on_devices_are_the_hosts(sharding):
    with train() as host, DeviceStream(train(), sharding) as device:
        for _ in range(7):
            expected, batch = next(host), next(device)
            assert all(array.sharding == sharding for array in jax.tree.leaves(batch))
            jax.tree.map(np.testing.assert_array_equal, batch, expected)
    with DeviceStream(data.eval_stream(SOURCE, image_size=8, batch_size=8), sharding, ahead=5) as device:
        assert len(list(device)) == 3
        with pytest.raises(StopIteration):
            next(device)


def test_device_streams_state_is_of_what_was_given_not_of_what_was_fetched(sharding):
    with train() as host:
        expected = [shades(batch) for batch in itertools.islice(host, 10)]
    with DeviceStream(train(), sharding, ahead=3) as first:
        assert first.get_state()["next_batch"] == 0
        for _ in range(6):
            next(first)
        state = first.get_state()
        assert state["next_batch"] == 6
    with DeviceStream(train(), sharding, ahead=3) as second:
        next(second)
        second.set_state(state)
        assert [shades(next(second)) for _ in range(4)] == expected[6:]


@pytest.mark.slow
def test_an_augmented_pass_end_to_end(sharding):
    with DeviceStream(train(augmented=(True,)), sharding) as device:
        images, _ = next(device)[0]
        crop = jax.jit(augment.random_crop_flip, static_argnames=("size", "flip"))
        crops = crop(images, jax.random.key(0), size=16, flip=True)
    assert crops.shape == (4, 16, 16, 3)
    np.testing.assert_array_equal(crops[:, 3, 4, 0], images[:, 0, 0, 0])
