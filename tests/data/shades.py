"""Images of one shade, and a set of TFDS's form that holds them."""

import io

import tensorflow_datasets as tfds
from PIL import Image

from vpns_jax import data


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
