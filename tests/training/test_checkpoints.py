"""Checkpoints: which are kept, that they are restored bit for bit, and that damage is noticed."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from vpns_jax.errors import UserError
from vpns_jax.parallel import sharding
from vpns_jax.training.checkpoints import Checkpoints, within_epochs


def tree(fill):
    """Makes small and large arrays of several dtypes, as in training."""
    rng = np.random.default_rng(fill)
    return {
        "learned": {"kernel": jnp.asarray(rng.normal(size=(600, 500)), jnp.float32)},
        "mask": {"kernel": jnp.asarray(rng.random((600, 500)) < 0.5)},
        "bias": jnp.asarray([-0.0, jnp.nan, jnp.inf, 1e-45, fill], jnp.float32),
        "half": jnp.asarray(rng.normal(size=3), jnp.bfloat16),
        "step": jnp.int32(fill),
        "empty": {},
    }


LIKE = jax.tree.map(jnp.zeros_like, tree(0))


def save_three(folder, accuracies=(0.5, 0.7, 0.6)):
    with Checkpoints(folder, "config-a") as checkpoints:
        for epoch, accuracy in enumerate(accuracies, start=1):
            checkpoints.save(epoch, tree(epoch), accuracy=accuracy)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of `save_three`."""
    folder = tmp_path_factory.mktemp("saved")
    save_three(folder)
    return folder


@pytest.fixture
def three(saved, tmp_path):
    """A copy of it."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    return tmp_path


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_the_newest_and_the_best_are_kept_and_come_back_bit_for_bit(three):
    with Checkpoints(three, "config-a") as checkpoints:
        newest, best = checkpoints.newest(LIKE), checkpoints.best(LIKE)
        assert checkpoints.best_accuracy() == pytest.approx(0.7, abs=1e-9)
    assert (newest[0], best[0]) == (3, 2)
    assert_same(newest[1], tree(3))
    assert_same(best[1], tree(2))
    assert sorted(path.name for path in three.iterdir()) == ["2", "3"]


@pytest.mark.slow
def test_of_equals_the_earliest_is_best_whatever_they_are(tmp_path):
    small = {"step": jnp.int32(0)}
    for number, accuracy in enumerate((0.7, 0.1, 1 / 3, 0.24686191976070404, 1.0, 0.0)):
        with Checkpoints(tmp_path / str(number), "config-a") as checkpoints:
            for epoch in (1, 2, 30):
                checkpoints.save(epoch, small, accuracy=accuracy)
                assert checkpoints.best_accuracy() == accuracy
            assert checkpoints.newest(small)[0] == 30
            assert checkpoints.best(small)[0] == 1


def test_a_best_checkpoint_that_is_gone_or_damaged_is_noticed_before_training_goes_on(three):
    with (three / "2" / "state" / "_METADATA").open("ab") as file:
        file.write(b" ")
    with (
        Checkpoints(three, "config-a") as checkpoints,
        pytest.raises(UserError, match=r"/2 is damaged: state/_METADATA does not match its checksum; remove .* again"),
    ):
        checkpoints.newest(LIKE)
    shutil.rmtree(three / "2")
    with (
        Checkpoints(three, "config-a") as checkpoints,
        pytest.raises(UserError, match=r"/2, the best so far, is gone"),
    ):
        checkpoints.newest(LIKE)


@pytest.mark.slow
@pytest.mark.parametrize(("saved", "restored"), [((4, 2), (1, 1)), ((1, 1), (2, 4)), ((1, 4), (2, 2))])
def test_another_layout_gets_the_same_bits_and_its_own_shards(tmp_path, saved, restored):
    def place(tree, layout):
        devices = jax.devices()[: layout[0] * layout[1]]
        return sharding.place(tree, sharding.make_mesh(8, devices, data=layout[0], fsdp=layout[1]))

    with Checkpoints(tmp_path, "config-a") as checkpoints:
        checkpoints.save(1, place(tree(1), saved), accuracy=0.5)
    like = place(LIKE, restored)
    with Checkpoints(tmp_path, "config-a") as checkpoints:
        loaded = checkpoints.restore(1, like)
    assert_same(loaded, tree(1))
    assert {x.sharding for x in jax.tree.leaves(loaded)} == {x.sharding for x in jax.tree.leaves(like)}
    assert loaded["mask"]["kernel"].addressable_shards[0].data.shape == (600 // restored[1], 500)


def test_without_a_best_the_newest_alone_is_kept(tmp_path):
    with Checkpoints(tmp_path, "config-a", keep_best=False) as checkpoints:
        for epoch, accuracy in ((1, 0.9), (2, 0.5), (3, 0.1)):
            checkpoints.save(epoch, {"step": jnp.int32(epoch)}, accuracy=accuracy)
        assert checkpoints.newest({"step": jnp.int32(0)}) == (3, {"step": 3})
        assert checkpoints.best_accuracy() is None
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_of_equals_the_earliest_is_best(tmp_path):
    save_three(tmp_path, accuracies=(0.7, 0.7, 0.6))
    with Checkpoints(tmp_path, "config-a") as checkpoints:
        assert checkpoints.best(LIKE)[0] == 1


def test_none_yet(tmp_path):
    with Checkpoints(tmp_path, "config-a") as checkpoints:
        assert checkpoints.newest(LIKE) is None
        assert checkpoints.best_accuracy() is None


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_one_of_another_config_is_refused(three):
    with Checkpoints(three, "config-b") as checkpoints, pytest.raises(UserError, match="another config") as error:
        checkpoints.newest(LIKE)
    one_line(error)


def flip(path, place, bit):
    raw = bytearray(path.read_bytes())
    raw[place] ^= bit
    path.write_bytes(raw)


def damages():
    """Damages a file in several ways."""
    yield from (lambda path, share=share: flip(path, int(share * path.stat().st_size), 1) for share in (0, 0.5, 0.99))
    yield lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    yield lambda path: path.write_bytes(b"")
    yield lambda path: path.unlink()
    yield lambda path: path.rename(path.with_name("another"))


@pytest.mark.slow
def test_any_damage_to_any_file_is_one_line_that_names_it_and_offers_the_older_one(saved, tmp_path):
    names = [path.relative_to(saved) for path in saved.rglob("*") if path.is_file()]
    assert len(names) > 10
    advised = None
    for number, name in enumerate(names):
        for damage in damages():
            folder = tmp_path / f"{number}"
            shutil.copytree(saved, folder)
            damage(folder / name)
            with Checkpoints(folder, "config-a") as checkpoints, pytest.raises(UserError) as error:
                checkpoints.newest(LIKE)
            text, (epoch, *inner) = one_line(error), name.parts
            assert "/".join(inner) in text
            if epoch == "3":
                assert f"remove {folder / '3'} to continue from 2, which is intact" in text
                shutil.rmtree(folder / "3")
                # What the advice leaves is always the same.
                advised = advised or folder.rename(tmp_path / "advised")
            else:
                assert f"remove {folder} to run the stage again" in text
            shutil.rmtree(folder, ignore_errors=True)
    with Checkpoints(advised, "config-a") as checkpoints:
        assert_same(checkpoints.newest(LIKE)[1], tree(2))
        assert checkpoints.best_accuracy() == 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("3", "4", "is checkpoint 3 under another name; rename it back"),
        ("2", "1", "/2, the best so far, is gone"),
        ("3", "x3", "/x3 is not the name of a checkpoint; rename it back, or remove it"),
        ("3", "03", "/03 is not the name of a checkpoint"),
    ],
)
def test_a_folder_under_another_name_is_noticed(three, old, new, message):
    (three / old).rename(three / new)
    with Checkpoints(three, "config-a") as checkpoints, pytest.raises(UserError, match=message) as error:
        checkpoints.newest(LIKE)
    one_line(error)


def test_without_the_newest_the_best_is_gone_on_from(three):
    shutil.rmtree(three / "3")
    with Checkpoints(three, "config-a") as checkpoints:
        assert checkpoints.newest(LIKE)[0] == 2
        checkpoints.save(3, tree(3), accuracy=0.6)
        assert checkpoints.best(LIKE)[0] == 2


def test_arrays_that_storage_gives_otherwise_are_noticed(three, monkeypatch):
    read = ocp.Checkpointer.restore
    monkeypatch.setattr(ocp.Checkpointer, "restore", lambda *a, **k: jax.tree.map(lambda x: x * 0, read(*a, **k)))
    with Checkpoints(three, "config-a") as checkpoints, pytest.raises(UserError, match="its arrays do not match"):
        checkpoints.newest(LIKE)


# The errors of Orbax's storage, and of the system, when the disk is full.
FULL = ValueError("RESOURCE_EXHAUSTED: Error writing \"a/0\": No space left on device [os_error_code='28']")


@pytest.mark.slow
@pytest.mark.parametrize("error", [FULL, OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
def test_a_disk_that_refuses_is_one_line_and_costs_no_checkpoint(three, monkeypatch, error):

    def refuse(self, directory, *_, **__):
        directory.mkdir()
        raise error

    with monkeypatch.context() as patch, Checkpoints(three, "config-a") as checkpoints:
        patch.setattr(ocp.Checkpointer, "save", refuse)
        with pytest.raises(UserError, match=r"/4 cannot be written( or read)?: (No space|Read-only)") as raised:
            checkpoints.save(4, tree(4), accuracy=0.9)
        one_line(raised)
    assert sorted(path.name for path in three.iterdir()) == ["2", "3"]
    with Checkpoints(three, "config-a") as checkpoints:
        assert_same(checkpoints.newest(LIKE)[1], tree(3))
        # After there is room again.
        checkpoints.save(4, tree(4), accuracy=0.9)
        assert_same(checkpoints.best(LIKE)[1], tree(4))


def test_a_disk_that_refuses_to_remove_the_oldest_is_one_line(three, monkeypatch):
    rename = Path.rename

    def refuse(path, target):
        if path.name == "3":
            raise OSError(30, "Read-only file system", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with Checkpoints(three, "config-a") as checkpoints, pytest.raises(UserError, match=r"3 cannot be .*Read-only"):
        checkpoints.save(4, tree(4), accuracy=0.1)


def test_a_stage_that_is_run_again_leaves_no_checkpoints_within_its_epochs(three):
    within_epochs(three).mkdir()
    shutil.rmtree(three / "2")
    flip(three / "3" / "meta.json", 0, 1)
    with Checkpoints(three, "config-a") as checkpoints, pytest.raises(UserError) as error:
        checkpoints.newest(LIKE)
    assert one_line(error).endswith(f"remove {three} and {three.name}-within beside it to run the stage again")


def test_what_a_kill_left_half_written_or_half_removed_does_not_count(three):
    shutil.copytree(three / "3", three / "4.unfinished")
    (three / "4.unfinished" / "meta.json").unlink()
    shutil.copytree(three / "2", three / "1.unfinished")
    with Checkpoints(three, "config-a") as checkpoints:
        assert checkpoints.newest(LIKE)[0] == 3
        checkpoints.save(4, tree(4), accuracy=0.1)
    assert sorted(path.name for path in three.iterdir() if path.name[0] != "1") == ["2", "4"]


def test_a_tree_of_another_shape_is_refused(three):
    other = LIKE | {"learned": {"kernel": jnp.zeros((500, 600))}}
    with Checkpoints(three, "config-a") as checkpoints, pytest.raises(UserError, match="other arrays"):
        checkpoints.newest(other)
