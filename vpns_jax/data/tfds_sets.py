"""The paper's data sets, prepared by TFDS as ArrayRecord files and read without TensorFlow."""

import dataclasses
import functools
import hashlib
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vpns_jax import files
from vpns_jax.data import prepared
from vpns_jax.data.decode import UnreadableImageError, decode_image
from vpns_jax.data.decoding import AS_STORED, DEFAULT, DecodeOptions, Decoding
from vpns_jax.data.source import Original
from vpns_jax.errors import UserError, first_line

_LOG = logging.getLogger(__name__)
_CHECKSUM_BYTES = hashlib.sha256().digest_size


@dataclasses.dataclass(frozen=True)
class Entry:
    """How TFDS prepares a data set.

    Attributes:
      builder: its builder's name, in TFDS or in `builders.py`.
      train: TFDS's name of the training split.
      test: TFDS's name of the test split.
      val: TFDS's name of the validation split; None if validation is held out of the training split.
      download: the size and the server of the download; empty if the archive must be downloaded by hand.
      manual: the files that must lie in the manual folder, as paths below it.
      instructions: how to get these files.
      needs_tensorflow: whether preparing it needs TensorFlow. Reading never does.
    """

    builder: str
    train: str = "train"
    test: str = "test"
    val: str | None = None
    download: str = ""
    manual: tuple[str, ...] = ()
    instructions: str = ""
    needs_tensorflow: bool = True


ENTRIES = {
    "cifar10": Entry("cifar10", download="162 MiB from www.cs.toronto.edu"),
    "cifar100": Entry("cifar100", download="161 MiB from www.cs.toronto.edu"),
    # The labels of its test split were never published; the validation split is the test split here.
    "tiny_imagenet": Entry(
        "tiny_imagenet", test="validation", download="237 MiB from cs231n.stanford.edu", needs_tensorflow=False
    ),
    "food101": Entry(
        "food101", test="validation", download="4.7 GiB from data.vision.ee.ethz.ch", needs_tensorflow=False
    ),
    "dtd": Entry("dtd", val="validation", download="596 MiB from www.robots.ox.ac.uk"),
    "flowers102": Entry("oxford_flowers102", val="validation", download="329 MiB from www.robots.ox.ac.uk"),
    "oxford_pets": Entry("oxford_iiit_pet", download="774 MiB from thor.robots.ox.ac.uk"),
    "stanford_cars": Entry(
        "stanford_cars",
        manual=("stanford_cars",),
        instructions="a folder with cars_train/, cars_test/, cars_meta.mat, cars_train_annos.mat and "
        "cars_test_annos_withlabels.mat, at any depth; the original address is dead, but copies of the archive are on "
        "Kaggle",
        needs_tensorflow=False,
    ),
    # The labels of its test split were never published; as usual, the validation split is the test split.
    "imagenet": Entry(
        "imagenet2012",
        test="validation",
        manual=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
        instructions="144 GiB, for which you register on https://image-net.org/download-images",
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSource:
    """One split of a prepared data set. It opens its files on first use, so a pickled source holds only names."""

    name: str
    data_dir: str | None
    split: str
    decoding: Decoding = AS_STORED

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        record = self._record(index)
        try:
            return decode_image(record["image"], self.decoding), int(record["label"])
        except UnreadableImageError as error:
            raise UserError(
                f"data set {self.name!r}: image {index} of {self.split} in {self._builder.data_dir} cannot be read "
                f"({error}); remove that folder and prepare it again"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return TfdsSource, (self.name, self.data_dir, self.split, self.decoding)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32 `[n]`. The first time, all records are read; then a file beside them keeps the labels."""
        return read_labels(self)

    @property
    def labels_path(self) -> Path:
        """The file that keeps the labels."""
        return Path(self._builder.data_dir, f"labels.{self.split}.npy")

    @functools.cached_property
    def _builder(self) -> Any:
        return make_builder(self.name, data_dir=self.data_dir)

    @functools.cached_property
    def _records(self) -> Any:
        import tensorflow_datasets as tfds

        # Images stay bytes here, so that TFDS's and a folder's images are decoded by the same code.
        images = [key for key, value in self._builder.info.features.items() if isinstance(value, tfds.features.Image)]
        return self._builder.as_data_source(self.split, decoders={key: tfds.decode.SkipDecoding() for key in images})

    def label_of(self, index: int) -> int:
        """The label of one record; its image is not decoded."""
        return int(self._record(index)["label"])

    def _record(self, index: int) -> Any:
        try:
            return self._records[index]
        except Exception as error:  # ArrayRecord, which checks checksums, and TFDS raise errors of many classes.
            raise UserError(
                f"data set {self.name!r}: record {index} of {self.split} in {self._builder.data_dir} is damaged "
                f"({first_line(error)}); remove that folder and prepare it again"
            ) from error


def open_tfds(name: str, options: DecodeOptions = DEFAULT, *, data_dir: str | None = None) -> Original:
    """Opens a prepared data set.

    Args:
      name: a key of `ENTRIES`.
      options: how its images are decoded; by default, pixels are as stored.
      data_dir: TFDS's folder; None takes $TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Returns:
      The data set.

    Raises:
      UserError: the data set is not prepared there, or in a file format without random access; its description is
        damaged; or the options ask for a measured gray range, which only folders have.
    """
    import tensorflow_datasets as tfds

    if options.grey_range == "measured":
        raise UserError(f"data.grey_range is 'measured', and only folders are; {name} allows 'auto' and 'full'")
    entry, builder = ENTRIES[name], _opened_builder(name, data_dir)
    command = prepare_command(name, data_dir)
    if not builder.info.splits:
        raise UserError(f"data set {name!r} is not prepared in {builder.data_dir}; prepare it with: {command}")
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"data set {name!r} is prepared in {builder.data_dir} as {builder.info.file_format.value}, which has no "
            f"random access; prepare it as array_record elsewhere: {prepare_command(name, 'OTHER_FOLDER')}"
        )
    prepared.remember(Path(builder.data_dir))
    decoding = options.decide(exif=False)
    source = functools.partial(TfdsSource, name, data_dir, decoding=decoding)
    return Original(
        tuple(builder.info.features["label"].names),
        flip=True,
        train=source(split=entry.train),
        test=source(split=entry.test),
        val=source(split=entry.val) if entry.val else None,
        decoding=decoding,
    )


def contents(name: str, options: DecodeOptions = DEFAULT, *, data_dir: str | None = None) -> Iterator[bytes]:
    """Describes a prepared data set: its description, the names and sizes of its records, and the decoding.

    Args:
      name: a key of `ENTRIES`.
      options: how its images are decoded.
      data_dir: see `open_tfds`.

    Yields:
      Bytes; their digest identifies the data.

    Raises:
      UserError: as `open_tfds`.
    """
    yield json.dumps(open_tfds(name, options, data_dir=data_dir).decoding.to_json()).encode()
    for path in sorted(Path(make_builder(name, data_dir=data_dir).data_dir).iterdir()):
        if ".array_record" in path.name:
            yield f"{path.name} {path.stat().st_size}\n".encode()
        elif path.name in ("dataset_info.json", "features.json") or path.name.endswith(".labels.txt"):
            content = path.read_bytes()
            yield f"{path.name} {len(content)}\n".encode() + content


def _opened_builder(name: str, data_dir: str | None) -> Any:
    """`make_builder`, but raises `UserError` if the description of the prepared data is damaged."""
    import tensorflow_datasets as tfds

    home = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / ENTRIES[name].builder
    prepared.check(home, name)
    try:
        return make_builder(name, data_dir=data_dir)
    except UserError:
        raise
    except Exception as error:  # TFDS raises errors of many classes for descriptions that cannot be parsed.
        raise UserError(
            f"data set {name!r}: its description below {home} cannot be read "
            f"({type(error).__name__}: {first_line(error)}); remove that folder and prepare it again"
        ) from error


def make_builder(name: str, *, data_dir: str | None, file_format: str | None = None) -> Any:
    """The TFDS builder of a data set, which may be prepared or not.

    Args:
      name: a key of `ENTRIES`.
      data_dir: see `open_tfds`.
      file_format: the file format to prepare it in; None takes the existing one, or TFDS's default.

    Returns:
      The builder.
    """
    import tensorflow_datasets as tfds

    from vpns_jax.data import builders

    entry = ENTRIES[name]
    if entry.builder in builders.BUILDERS:
        return builders.BUILDERS[entry.builder](data_dir=data_dir, file_format=file_format)
    return tfds.builder(entry.builder, data_dir=data_dir, file_format=file_format)


def prepare_command(name: str, data_dir: str | None) -> str:
    """The command line that prepares a data set."""
    return f"python -m vpns_jax.data prepare {name}" + (f" --data_dir={data_dir}" if data_dir else "")


def read_labels(source: TfdsSource, *, progress: bool = False) -> np.ndarray:
    """The labels of a source: read from the file that keeps them, or else from its records and then written there.

    The file has NumPy's format, with its SHA-256 appended; NumPy ignores appended bytes.

    Args:
      source: the source.
      progress: whether to show a progress bar.

    Returns:
      int32 `[n]`.
    """
    from tqdm import tqdm

    try:
        content = source.labels_path.read_bytes()
        array, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
        if hashlib.sha256(array).digest() == checksum:
            labels = np.load(io.BytesIO(array), allow_pickle=False)
            # If the records were prepared again, the file may belong to the old ones.
            if labels.shape == (len(source),):
                return labels
    except OSError:
        pass  # If the file is absent or damaged, the labels are read again.
    indices = tqdm(range(len(source)), desc=f"reading labels of {source.split}", unit="image", disable=not progress)
    labels = np.fromiter((source.label_of(index) for index in indices), np.int32, len(source))
    buffer = io.BytesIO()
    np.save(buffer, labels)
    try:
        files.write_whole(source.labels_path, buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest())
    except UserError as error:
        _LOG.info("cannot remember labels: %s", error)
    return labels
