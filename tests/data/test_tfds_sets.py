"""TFDS data sets, on records that the tests make; no test needs a network."""

import functools
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.data.shades import build_cifar10, shades
from vpns_jax import data
from vpns_jax.data import prepare, tfds_sets
from vpns_jax.errors import UserError


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    build_cifar10(folder)
    return str(folder)


def test_cifar10_is_read_without_tensorflow(cifar10):
    sources = data.open_sources("cifar10", data_dir=cifar10, val_fraction=0.25)
    assert sources.classes == tuple(f"class{k}" for k in range(10))
    assert sources.flip
    # One of the four images of each class is held out.
    np.testing.assert_array_equal(np.bincount(sources.val.labels), [1] * 10)
    train, val, test = (shades(split) for split in (sources.train, sources.val, sources.test))
    assert sorted(train + val) == list(range(40))
    assert sorted(test) == list(range(100, 110))
    for split in (sources.train, sources.val, sources.test):
        assert (
            [value % 10 for value in shades(split)] == split.labels.tolist() == [split[i][1] for i in range(len(split))]
        )

    dataset = data.load("cifar10", data_dir=cifar10, image_size=16, val_fraction=0.25)
    assert dataset.train.images.shape == (30, 16, 16, 3)
    assert dataset.train.images[:, 0, 0, 0].tolist() == train


def test_the_environment_says_where_data_sets_are(cifar10, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", cifar10)
    assert len(data.open_sources("cifar10").train) == 30


def test_labels_are_remembered_and_what_is_damaged_is_read_again(cifar10, monkeypatch):
    source = data.open_sources("cifar10", data_dir=cifar10).test
    labels, path = source.labels, source.labels_path
    assert path.exists()
    with monkeypatch.context() as patch:
        patch.setattr(tfds_sets.TfdsSource, "label_of", lambda *_: pytest.fail("read the records again"))
        np.testing.assert_array_equal(tfds_sets.read_labels(source), labels)
    whole = path.read_bytes()
    for content in (b"", b"damaged", whole[:-4], whole[:-32]):
        path.write_bytes(content)
        np.testing.assert_array_equal(tfds_sets.read_labels(source), labels)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        np.testing.assert_array_equal(tfds_sets.read_labels(source), labels)
        # The file was written again.
        assert path.read_bytes() == whole
    np.testing.assert_array_equal(np.load(path), labels)


def test_a_damaged_description_is_one_line(tmp_path):
    build_cifar10(tmp_path, train=20, test=10)
    folder = tmp_path / "cifar10" / "3.0.2"
    data.open_sources("cifar10", data_dir=str(tmp_path))
    names = ["dataset_info.json", "features.json", "label.labels.txt", "vpns_jax.checksums.json"]
    for name in names:
        path = folder / name
        whole = path.read_bytes()
        for place in range(0, len(whole), 17):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(UserError, match=name) as error:
                data.open_sources("cifar10", data_dir=str(tmp_path))
            assert "\n" not in str(error.value)
            assert f"{folder} and prepare cifar10 again" in str(error.value)
        path.unlink()
        if name != "vpns_jax.checksums.json":
            with pytest.raises(UserError, match=f"{name}: No such file"):
                data.open_sources("cifar10", data_dir=str(tmp_path))
        path.write_bytes(whole)
    data.open_sources("cifar10", data_dir=str(tmp_path))


def test_a_description_that_was_damaged_before_it_was_opened(tmp_path):
    build_cifar10(tmp_path, train=2, test=2)
    (tmp_path / "cifar10" / "3.0.2" / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match=r"cifar10 cannot be read .*; remove that folder and prepare it again") as error:
        data.open_sources("cifar10", data_dir=str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_damaged_records_are_one_line(tmp_path):
    build_cifar10(tmp_path, train=40, test=10)
    (path,) = (tmp_path / "cifar10" / "3.0.2").glob("*train*array_record*")
    whole = path.read_bytes()
    expected, said = shades(tfds_sets.TfdsSource("cifar10", str(tmp_path), "train")), []
    # Most bytes of such a small file are padding.
    written = [place for place, byte in enumerate(whole) if byte]
    for place in written[:: len(written) // 40]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            values = shades(tfds_sets.TfdsSource("cifar10", str(tmp_path), "train"))
        except UserError as error:
            said.append(str(error))
        else:
            # Bytes between the records.
            assert values == expected
    assert len(said) > 20
    assert all("\n" not in line and "remove that folder and prepare it again" in line for line in said)


def test_a_source_is_pickled_as_a_place(cifar10):
    source = data.open_sources("cifar10", data_dir=cifar10).test
    assert shades(source)
    pickled = pickle.dumps(source)
    assert len(pickled) < 500
    assert shades(pickle.loads(pickled)) == shades(source)


def test_pixels_are_as_stored_unless_it_is_asked_for(cifar10):
    opened = functools.partial(data.open_sources, "cifar10", data_dir=cifar10)
    assert opened().decoding == opened().train.source.decoding == data.Decoding(exif=False)
    asked = opened(options=data.DecodeOptions("on", "full", 2.0))
    for source in (asked.train.source, asked.test, pickle.loads(pickle.dumps(asked.test))):
        assert source.decoding == asked.decoding == data.Decoding(exif=True, max_megapixels=2.0)
    # 32 x 32 pixels.
    with pytest.raises(UserError, match=r"32 x 32 pixels are more than data.max_megapixels = 0.001"):
        opened(options=data.DecodeOptions(max_megapixels=0.001)).test[0]
    with pytest.raises(UserError, match=r"grey_range is 'measured', and only folders are; cifar10 allows 'auto'"):
        opened(options=data.DecodeOptions(grey_range="measured"))


def test_a_set_that_is_not_prepared_says_how(tmp_path):
    for name in tfds_sets.ENTRIES:
        with pytest.raises(UserError, match=f"python -m vpns_jax.data prepare {name} --data_dir={tmp_path}"):
            data.open_sources(name, data_dir=str(tmp_path))


def test_tfrecord_says_what_to_do(tmp_path, capsys):
    build_cifar10(tmp_path, train=2, test=2)
    info = tmp_path / "cifar10" / "3.0.2" / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(
        UserError, match="as tfrecord, which has no random access; prepare it as array_record elsewhere"
    ):
        data.open_sources("cifar10", data_dir=str(tmp_path))
    assert prepare.main(["prepare", "cifar10", f"--data_dir={tmp_path}"]) == 2
    assert "as tfrecord" in capsys.readouterr().err


def test_a_set_beyond_the_budget_says_its_size(cifar10):
    sources = data.open_sources("cifar10", data_dir=cifar10)
    # 30 train images at 32 and at 36 pixels, 10 for validation and 10 for test at 32.
    assert data.resident_bytes(sources, image_size=32) == 3 * (30 * (32**2 + 36**2) + 20 * 32**2)
    with pytest.raises(UserError, match=r"'cifar10' at 32 px takes .* GiB, and the budget is 0.0 GiB"):
        data.load("cifar10", data_dir=cifar10, image_size=32, budget_bytes=200_000)


def test_every_entry_matches_its_builder(tmp_path):
    classes = {"cifar10": 10, "cifar100": 100, "tiny_imagenet": 200, "food101": 101, "dtd": 47, "flowers102": 102}
    classes |= {"oxford_pets": 37, "stanford_cars": 196, "imagenet": 1000}
    assert classes.keys() == tfds_sets.ENTRIES.keys()
    for name, count in classes.items():
        features = tfds_sets.make_builder(name, data_dir=str(tmp_path)).info.features
        assert features["label"].num_classes == count
        assert isinstance(features["image"], tfds.features.Image)
