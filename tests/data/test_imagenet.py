"""ImageNet and Tiny-ImageNet: mocked records, a download from this machine, and missing archives."""

import functools
import hashlib
import http.server
import io
import threading
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.data.shades import encode, shades
from vpns_jax import data
from vpns_jax.data import builders, prepare, tfds_sets


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
    assert np.abs(dataset.test.images[:, 9, 9, 0] - dataset.test.labels.astype(int)).max() <= 1
    shift = np.concatenate([split.images[:, 9, 9, 0] - split.labels for split in (dataset.train, dataset.val)])
    assert shift.min() >= -1
    assert shift.max() <= 2
    assert abs(shift.mean() - 0.5) < 0.1
    assert prepare.main(command) == 0
    assert "already prepared" in capsys.readouterr().out


def test_imagenet_without_its_archives_names_them(tmp_path, capsys):
    assert prepare.main(["prepare", "imagenet", f"--data_dir={tmp_path}", f"--manual_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        assert f"{tmp_path}/{name}" in error
    assert "https://image-net.org/download-images" in error
    assert error.count("\n") == 1
