"""Our own TFDS builders: Tiny-ImageNet, which TFDS lacks, and StanfordCars, whose download link in TFDS is dead.

They need TFDS, but not TensorFlow: image files are copied unchanged from the archive to the records.
"""

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from vpns_jax.errors import UserError

# The name, bytes and label of each image.
Images = Iterator[tuple[str, bytes, int]]
# The examples that TFDS writes, with their unique keys.
Examples = Iterator[tuple[str, dict[str, Any]]]


class _ImageBuilder(tfds.core.GeneratorBasedBuilder):
    """The base of both builders: the features of an example."""

    CLASSES: int
    HOMEPAGE: str

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "file_name": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=self.CLASSES),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=str(type(self).__doc__),
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
        )

    def _generate_examples(self, images: Images) -> Examples:
        for name, image, label in images:
            yield name, {"file_name": name, "image": image, "label": label}


class TinyImagenet(_ImageBuilder):
    """200 classes of ImageNet at 64 x 64 pixels: 100,000 training images and 10,000 validation images."""

    VERSION = tfds.core.Version("1.0.0")
    URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
    CLASSES = 200
    HOMEPAGE = "http://cs231n.stanford.edu/"

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        path = Path(dl_manager.download(self.URL))
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        if md5 != self.MD5:
            raise UserError(
                f"{path}, downloaded from {self.URL}, has MD5 {md5}, not {self.MD5}; remove it and try again"
            )
        archive = zipfile.ZipFile(path)
        root = "tiny-imagenet-200"
        ids = sorted(archive.read(f"{root}/wnids.txt").decode().split())
        words = dict(line.split("\t", 1) for line in archive.read(f"{root}/words.txt").decode().splitlines())
        self.info.features["label"].names = [f"{id_} {words[id_].split(',')[0]}" for id_ in ids]
        return {
            "train": self._generate_examples(_tiny_train(archive, root, ids)),
            "validation": self._generate_examples(_tiny_validation(archive, root, ids)),
        }


class StanfordCars(_ImageBuilder):
    """196 car models: 8,144 training images and 8,041 test images, read from a folder that the user provides."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "See `python -m vpns_jax.data list`."
    CLASSES = 196
    HOMEPAGE = "https://ai.stanford.edu/~jkrause/cars/car_dataset.html"

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        root = Path(dl_manager.manual_dir, "stanford_cars")
        names = _matlab(_find(root, "cars_meta.mat"))["class_names"]
        self.info.features["label"].names = [str(name) for name in names]
        return {
            "train": self._generate_examples(_cars(root, "cars_train_annos.mat", "cars_train")),
            "test": self._generate_examples(_cars(root, "cars_test_annos_withlabels.mat", "cars_test")),
        }


BUILDERS = {"tiny_imagenet": TinyImagenet, "stanford_cars": StanfordCars}


def _tiny_train(archive: zipfile.ZipFile, root: str, ids: list[str]) -> Images:
    for path in archive.namelist():
        if path.startswith(f"{root}/train/") and path.endswith(".JPEG"):
            id_, *_, name = path.removeprefix(f"{root}/train/").split("/")
            yield name, archive.read(path), ids.index(id_)


def _tiny_validation(archive: zipfile.ZipFile, root: str, ids: list[str]) -> Images:
    for line in archive.read(f"{root}/val/val_annotations.txt").decode().splitlines():
        name, id_ = line.split("\t")[:2]
        yield name, archive.read(f"{root}/val/images/{name}"), ids.index(id_)


def _cars(root: Path, annotations: str, folder: str) -> Images:
    """The images that a MATLAB file names, found in `folder` at any depth below `root`."""
    paths = {path.name: path for path in root.rglob("*.jpg") if folder in path.parts}
    for annotation in _matlab(_find(root, annotations))["annotations"]:
        name = str(annotation["fname"])
        if name not in paths:
            raise UserError(f"{annotations} names {name}, but there is no such image below {root}/{folder}")
        # MATLAB counts from one.
        yield name, paths[name].read_bytes(), int(annotation["class"]) - 1


def _find(root: Path, name: str) -> Path:
    paths = sorted(root.rglob(name))
    if not paths:
        raise UserError(f"there is no {name} in {root}")
    return paths[0]


def _matlab(path: Path) -> dict[str, Any]:
    import scipy.io

    return scipy.io.loadmat(path, squeeze_me=True)
