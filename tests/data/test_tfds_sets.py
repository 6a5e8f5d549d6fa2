"""TFDS data sets, on records that the tests make; no test needs a network."""

import functools
import hashlib
import http.server
import io
import json
import os
import pickle
import threading
import zipfile

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from vpns_jax import data
from vpns_jax.data import builders, prepare, tfds_sets
from vpns_jax.errors import UserError


def encode(value: int, size: tuple[int, int] = (32, 32), mode: str = "RGB", kind: str = "PNG") -> bytes:
    """An image file of one shade."""
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).convert(mode).save(file, kind)
    return file.getvalue()


def shades(source: data.Source) -> list[int]:
    return [int(source[i][0][0, 0, 0]) for i in range(len(source))]


def build_cifar10(folder, *, train: int = 40, test: int = 10) -> None:
    """Records with CIFAR-10's structure in TFDS's folder; image i has shade i and class i % 10."""

    class Fake(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "cifar10"
        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(names=[f"class{k}" for k in range(10)]),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(0, train), "test": self._generate_examples(100, test)}

        def _generate_examples(self, first, count):
            for i in range(first, first + count):
                yield i, {"id": str(i), "image": encode(i), "label": i % 10}

    Fake(data_dir=folder, file_format="array_record").download_and_prepare()


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


def test_imagenet_on_mocked_records(tmp_path):
    """ImageNet with its real description and splits, but few records; some are gray or CMYK, as in the real set."""
    builder = tfds_sets.make_builder("imagenet", data_dir=str(tmp_path), file_format="array_record")
    splits = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[count],
            num_bytes=1,
            filename_template=tfds.core.ShardedFileTemplate(
                builder.data_path, dataset_name="imagenet2012", split=name, filetype_suffix="array_record"
            ),
        )
        for name, count in (("train", 20), ("validation", 6))
    ]
    builder.info.set_splits(tfds.core.SplitDict(splits))
    builder.data_path.mkdir(parents=True)
    builder.info.write_to_directory(builder.data_path)
    builder.info.features.save_config(builder.data_path)

    def as_data_source(self, split, decoders=None, **_):
        assert isinstance(decoders["image"], tfds.decode.SkipDecoding)
        modes = ("RGB", "L", "CMYK")
        return [
            {"image": encode(10 * i, (50 + i, 40), modes[i % 3], "JPEG"), "label": i % 2}
            for i in range(self.info.splits[split].num_examples)
        ]

    with tfds.testing.mock_data(as_data_source_fn=as_data_source, data_dir=str(tmp_path)):
        sources = data.open_sources("imagenet", data_dir=str(tmp_path), val_fraction=0.1)
        assert len(sources.classes) == 1000
        assert [len(split) for split in (sources.train, sources.val, sources.test)] == [18, 2, 6]
        assert [sources.test[i][0].shape for i in range(3)] == [(40, 50, 3), (40, 51, 3), (40, 52, 3)]
        np.testing.assert_allclose(shades(sources.test), [0, 10, 20, 30, 40, 50], atol=3)
        with data.train_stream(sources.train, image_size=32, batch_size=4, augmented=(True,), seed=0) as stream:
            ((images, labels),) = next(stream)
    assert images.shape == (4, 36, 36, 3)
    assert labels.shape == (4,)


IDS = sorted(f"n{1000 + 7 * k:08}" for k in range(200))


def tiny_imagenet_zip() -> bytes:
    """An archive laid out like Tiny-ImageNet's: class k has shades k and k + 1 to train on, and k for validation."""
    file = io.BytesIO()
    root = "tiny-imagenet-200"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{root}/wnids.txt", "\n".join(reversed(IDS)))
        archive.writestr(f"{root}/words.txt", "".join(f"{id_}\tthing {k}, thingum\n" for k, id_ in enumerate(IDS)))
        annotations = []
        for k, id_ in enumerate(IDS):
            archive.writestr(f"{root}/train/{id_}/{id_}_boxes.txt", "")
            for j in range(2):
                # Some of the real images are gray.
                image = encode(k + j, (64, 64), "L" if k % 5 == 0 else "RGB", "JPEG")
                archive.writestr(f"{root}/train/{id_}/images/{id_}_{j}.JPEG", image)
            archive.writestr(f"{root}/val/images/val_{k}.JPEG", encode(k, (64, 64), kind="JPEG"))
            annotations.append(f"val_{k}.JPEG\t{id_}\t0\t0\t9\t9")
        archive.writestr(f"{root}/val/val_annotations.txt", "\n".join(annotations))
        archive.writestr(f"{root}/test/images/test_0.JPEG", b"never read")
    return file.getvalue()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of a web server on this machine, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


@pytest.mark.slow
def test_tiny_imagenet_from_download_to_arrays(tmp_path, server, monkeypatch, capsys):
    address, served = server
    archive = tiny_imagenet_zip()
    (served / "tiny.zip").write_bytes(archive)
    monkeypatch.setattr(builders.TinyImagenet, "URL", f"{address}/tiny.zip")
    command = ["prepare", "tiny_imagenet", f"--data_dir={tmp_path}"]
    assert prepare.main(command) == 2
    assert f"has MD5 {hashlib.md5(archive).hexdigest()}, not 90528d7c" in capsys.readouterr().err

    monkeypatch.setattr(builders.TinyImagenet, "MD5", hashlib.md5(archive).hexdigest())
    assert prepare.main(command) == 0
    out = capsys.readouterr().out
    assert "downloads 237 MiB from cs231n.stanford.edu" in out
    assert "200 classes, 400 images to train on, 200 to test on" in out

    dataset = data.load("tiny_imagenet", data_dir=str(tmp_path), image_size=64, val_fraction=0.5)
    assert dataset.classes[3] == f"{IDS[3]} thing 3"
    assert len(dataset.val) == 200
    # JPEG may change a flat shade by one.
    assert (dataset.test.images[:, 9, 9, 0] - dataset.test.labels.astype(int)).max() <= 1
    shift = np.concatenate([split.images[:, 9, 9, 0] - split.labels for split in (dataset.train, dataset.val)])
    assert shift.min() >= -1
    assert shift.max() <= 2
    assert abs(shift.mean() - 0.5) < 0.1
    assert prepare.main(command) == 0
    assert "already prepared" in capsys.readouterr().out


def matlab_structs(rows: list[tuple[str, int]]) -> np.ndarray:
    return np.array(rows, dtype=[("fname", object), ("class", object)])


def stanford_cars_folder(root) -> None:
    """A folder like the unpacked archives; image k of the training split has class and shade k % 196."""
    (root / "devkit").mkdir(parents=True)
    classes = np.array([f"Car {k} 2012" for k in range(196)], object)
    scipy.io.savemat(root / "devkit" / "cars_meta.mat", {"class_names": classes})
    for split, path, count in (
        ("cars_train", root / "devkit" / "cars_train_annos.mat", 392),
        ("cars_test", root / "cars_test_annos_withlabels.mat", 196),
    ):
        (root / split).mkdir()
        rows = [(f"{k:05}.jpg", k % 196 + 1) for k in range(count)]
        scipy.io.savemat(path, {"annotations": matlab_structs(rows)})
        for k in range(count):
            (root / split / f"{k:05}.jpg").write_bytes(encode(k % 196, (30, 20), kind="JPEG"))


def test_stanford_cars_from_a_manual_folder(tmp_path, capsys):
    command = ["prepare", "stanford_cars", f"--data_dir={tmp_path}"]
    assert prepare.main(command) == 2
    assert f"missing: {tmp_path}/downloads/manual/stanford_cars (a folder with cars_train/" in capsys.readouterr().err

    command.append(f"--manual_dir={tmp_path / 'mine'}")
    stanford_cars_folder(tmp_path / "mine" / "stanford_cars")
    assert prepare.main(command) == 0
    sources = data.open_sources("stanford_cars", data_dir=str(tmp_path))
    assert sources.classes[195] == "Car 195 2012"
    np.testing.assert_array_equal(np.bincount(sources.train.labels), [1] * 196)
    np.testing.assert_allclose(shades(sources.test), sources.test.labels, atol=1)
    np.testing.assert_allclose(shades(sources.train), sources.train.labels, atol=1)


def test_stanford_cars_with_something_missing(tmp_path, capsys):
    root = tmp_path / "downloads" / "manual" / "stanford_cars"
    stanford_cars_folder(root)
    (root / "cars_test" / "00007.jpg").unlink()
    command = ["prepare", "stanford_cars", f"--data_dir={tmp_path}"]
    assert prepare.main(command) == 2
    assert "names 00007.jpg, but there is no such image below" in capsys.readouterr().err
    (root / "devkit" / "cars_meta.mat").unlink()
    assert prepare.main(command) == 2
    assert "there is no cars_meta.mat in" in capsys.readouterr().err


def test_food101_is_prepared_by_its_builder_without_tensorflow(tmp_path, monkeypatch, capsys):
    """TFDS's own builder, with an unpacked archive in place of its download."""
    root = tmp_path / "unpacked" / "food-101"
    (root / "meta").mkdir(parents=True)
    for split, count in (("train", 4), ("test", 2)):
        listed = {name: [f"{name}/{split}{k}" for k in range(count)] for name in ("apple_pie", "waffles")}
        (root / "meta" / f"{split}.json").write_text(json.dumps(listed))
        for path in (path for paths in listed.values() for path in paths):
            (root / "images" / path).parent.mkdir(parents=True, exist_ok=True)
            (root / "images" / f"{path}.jpg").write_bytes(encode(200, (50, 40), kind="JPEG"))
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", lambda *_: str(root.parent))
    assert prepare.main(["prepare", "food101", f"--data_dir={tmp_path}"]) == 0
    assert "101 classes, 8 images to train on, 4 to test on" in capsys.readouterr().out
    sources = data.open_sources("food101", data_dir=str(tmp_path), val_fraction=0.25)
    assert sorted(sources.classes[label] for label in sources.test.labels) == ["apple_pie"] * 2 + ["waffles"] * 2
    assert sources.test[0][0].shape == (40, 50, 3)
    assert len(sources.val) == 2


def test_imagenet_without_its_archives_names_them(tmp_path, capsys):
    assert prepare.main(["prepare", "imagenet", f"--data_dir={tmp_path}", f"--manual_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        assert f"{tmp_path}/{name}" in error
    assert "https://image-net.org/download-images" in error
    assert error.count("\n") == 1


def test_preparing_without_tensorflow_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert prepare.main(["prepare", "cifar10", f"--data_dir={tmp_path}"]) == 2
    assert "pip install 'vpns_jax[prepare]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_list_and_prepare_of_bundled_sets_and_folders(tmp_path, monkeypatch, capsys):
    assert prepare.main(["list"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == list(data.names())
    assert "4.7 GiB from data.vision.ee.ethz.ch" in out
    assert prepare.main(["prepare", "digits"]) == 0
    assert "digits is ready: 10 classes" in capsys.readouterr().out

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for k in range(5):
            (tmp_path / "images" / name / f"{k}.png").write_bytes(encode(k))
    (tmp_path / "images" / "cat" / "bad.png").write_bytes(b"")
    (tmp_path / "images" / "dog" / ".hidden.png").touch()
    assert prepare.main(["prepare", f"folder:{tmp_path / 'images'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["class    train     test", "cat          4        1", "dog          4        1"]
    assert lines[3] == "skipped 1 hidden and system files and folders: dog/.hidden.png"
    assert lines[4].startswith("10 files have the bytes of a file with another label: cat/0.png = dog/0.png, ")
    assert lines[-2].endswith("2 classes, 8 images to train on, 2 to test on, 1 unreadable files left out:")
    assert lines[-1] == "  cat/bad.png: the file is empty"
    assert prepare.main(["prepare", "mnist"]) == 2
    assert "unknown data set 'mnist'; known: digits, fonts62" in capsys.readouterr().err


def test_a_terminal_that_lacks_the_letters_of_a_name_gets_them_escaped(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for k, name in enumerate(("犬", os.fsdecode(b"caf\xe9"))):
        (tmp_path / "images" / name).mkdir(parents=True)
        for j in range(3):
            (tmp_path / "images" / name / f"{j}.png").write_bytes(encode(10 * k + j))
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, "ascii", write_through=True))
    assert prepare.main(["prepare", f"folder:{tmp_path / 'images'}"]) == 0
    table = written.getvalue().decode("ascii").splitlines()
    assert [line.split()[0] for line in table[:3]] == ["class", "caf\\xe9", "\\u72ac"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ("command", "prepare NAME")),
        (["prepare"], ("name", "prepare NAME")),
        (["prepar", "digits"], ("'prepar'", "list")),
        (["prepare", "digits", "--folder=x"], ("--folder=x",)),
        (["prepare", "folder:~nosuchuser/x"], ("~nosuchuser", "no such user")),
        (["prepare", "folder:"], ("folder is empty",)),
        (["prepare", "cifar10", "--data_dir=~nosuchuser"], ("--data_dir", "no such user")),
        (["prepare", "cifar10", "--manual_dir="], ("--manual_dir is empty",)),
        (["prepare", "x" * 10**5], ("unknown data set", "digits")),
        (["prepare", "folder:" + "x" * 10**5], ("255 bytes",)),
    ],
)
def test_usage_errors_are_one_line(arguments, words, capsys):
    assert prepare.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) < 420
    for word in words:
        assert word in err
