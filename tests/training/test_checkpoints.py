"""Checkpoints: what is kept, that it comes back bit for bit, and that damage is noticed."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax.errors import UserError
from vpns_jax.parallel import sharding
from vpns_jax.training.checkpoints import Checkpoints


def tree(fill):
    """Small and large arrays of several dtypes, as training has them."""
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


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_the_newest_and_the_best_are_kept_and_come_back_bit_for_bit(tmp_path):
    save_three(tmp_path)
    with Checkpoints(tmp_path, "config-a") as checkpoints:
        newest, best = checkpoints.newest(LIKE), checkpoints.best(LIKE)
        assert checkpoints.best_accuracy() == pytest.approx(0.7, abs=1e-9)
    assert (newest[0], best[0]) == (3, 2)
    assert_same(newest[1], tree(3))
    assert_same(best[1], tree(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


def test_of_equals_the_earliest_is_best_whatever_they_are(tmp_path):
    small = {"step": jnp.int32(0)}
    for number, accuracy in enumerate((0.7, 0.1, 1 / 3, 0.24686191976070404, 1.0, 0.0)):
        with Checkpoints(tmp_path / str(number), "config-a") as checkpoints:
            for epoch in (1, 2, 30):
                checkpoints.save(epoch, small, accuracy=accuracy)
                assert checkpoints.best_accuracy() == accuracy
            assert checkpoints.newest(small)[0] == 30
            assert checkpoints.best(small)[0] == 1


def test_a_best_checkpoint_that_is_gone_or_damaged_is_noticed_before_training_goes_on(tmp_path):
    save_three(tmp_path)
    meta = tmp_path / "2" / "meta" / "metadata"
    text = meta.read_text()
    meta.write_text(json.dumps(json.loads(text) | {"digest": "0" * 64}))
    with Checkpoints(tmp_path, "config-a") as checkpoints, pytest.raises(UserError, match=r"/2 is damaged"):
        checkpoints.newest(LIKE)
    shutil.rmtree(tmp_path / "2")
    with (
        Checkpoints(tmp_path, "config-a") as checkpoints,
        pytest.raises(UserError, match=r"/2, the best so far, is gone"),
    ):
        checkpoints.newest(LIKE)


@pytest.mark.parametrize(("saved", "restored"), [((4, 2), (1, 1)), ((1, 1), (2, 4)), ((1, 4), (2, 2))])
def test_another_layout_gets_the_same_bits_and_its_own_shards(tmp_path, saved, restored):
    def place(tree, layout):
        devices = jax.devices()[: layout[0] * layout[1]]
        return sharding.place(tree, sharding.make_mesh(8, devices, data=layout[0], fsdp=layout[1]))

    with Checkpoints(tmp_path, "config-a") as checkpoints:
        checkpoints.save(1, place(tree(1), saved), accuracy=0.5)
    like = place(LIKE, restored)
    with Checkpoints(tmp_path, "config-a") as checkpoints:
        found = checkpoints.restore(1, like)
    assert_same(found, tree(1))
    assert {x.sharding for x in jax.tree.leaves(found)} == {x.sharding for x in jax.tree.leaves(like)}
    assert found["mask"]["kernel"].addressable_shards[0].data.shape == (600 // restored[1], 500)


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


def test_one_of_another_config_is_refused(tmp_path):
    save_three(tmp_path)
    with Checkpoints(tmp_path, "config-b") as checkpoints, pytest.raises(UserError, match="another config") as error:
        checkpoints.newest(LIKE)
    one_line(error)


def data_files(folder):
    """The arrays' own bytes, and everything else, of the newest checkpoint."""
    files = [path for path in (folder / "3").rglob("*") if path.is_file()]
    return [path for path in files if "/d/" in str(path)], files


def test_flipped_bytes_are_noticed(tmp_path):
    save_three(tmp_path)
    for path in data_files(tmp_path)[0]:
        raw = bytearray(path.read_bytes())
        if len(raw) > 2000:
            # Storage that compresses may notice by itself; stored plain, only the digest can tell.
            raw[len(raw) // 2] ^= 0x01
            path.write_bytes(raw)
    with Checkpoints(tmp_path, "config-a") as checkpoints, pytest.raises(UserError, match="damaged") as error:
        checkpoints.newest(LIKE)
    assert str(tmp_path / "3") in one_line(error)


def test_a_changed_digest_is_noticed(tmp_path):
    save_three(tmp_path)
    meta = tmp_path / "3" / "meta" / "metadata"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"digest": "0" * 64}))
    with (
        Checkpoints(tmp_path, "config-a") as checkpoints,
        pytest.raises(UserError, match="do not match their checksum"),
    ):
        checkpoints.newest(LIKE)


@pytest.mark.parametrize("cut", ["half", "all"])
def test_truncated_files_are_noticed(tmp_path, cut):
    save_three(tmp_path)
    for path in data_files(tmp_path)[1]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if cut == "half" else b"")
    with pytest.raises(UserError, match="damaged") as error, Checkpoints(tmp_path, "config-a") as checkpoints:
        checkpoints.newest(LIKE)
    one_line(error)


def test_a_tree_of_another_shape_is_refused(tmp_path):
    save_three(tmp_path)
    other = LIKE | {"learned": {"kernel": jnp.zeros((500, 600))}}
    with Checkpoints(tmp_path, "config-a") as checkpoints, pytest.raises(UserError, match="other arrays"):
        checkpoints.newest(other)
