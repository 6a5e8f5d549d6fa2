"""The groups of the data and of the devices that share it."""

import dataclasses

from vpns_jax.data import DecodeOptions
from vpns_jax.errors import UserError
from vpns_jax.experiment import ranges
from vpns_jax.options import Range, at, option


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The downstream data set."""

    name: str = option(
        "cifar10",
        'A data set of docs/data.md, "folder:/path" for a folder of images with a sub-folder for each class, or '
        '"module:function" or "file.py:function" for a function of your own.',
        ranges.data_set,
    )
    image_size: int = option(
        224,
        "The side in pixels to which images are resized; if it is less than the canvas, zeros surround them.",
        ranges.SIDE,
    )
    batch_size: int = option(256, "Images in a batch, over all devices together.", ranges.BATCH_SIZE)
    val_fraction: float = option(
        0.1,
        "The share of the training split that is held out for validation, if the data set has no validation split.",
        Range(0, 1, "", "()", must="it must lie in (0, 1)"),
    )
    directory: str = option(
        "",
        'The folder of prepared data sets; "" means $TFDS_DATA_DIR, or ~/tensorflow_datasets.',
        ranges.maybe_path,
    )
    exif: str = option(
        "auto",
        'Whether images are rotated as their EXIF orientation says: "on", "off", or "auto" (on for folders).',
    )
    grey_range: str = option(
        "auto",
        'Which levels of 16-bit grayscale become black and white: "full" (0 and 65535), "measured" (the darkest and '
        'the brightest level in the folder), or "auto" (measured if no image uses the upper half).',
    )
    max_megapixels: float = option(
        64.0,
        "The largest image, in millions of pixels. A larger JPEG is decoded at a reduced size; any other larger "
        "image counts as unreadable.",
        Range(0, 4295, "that is the largest picture that a JPEG can be", "(]"),
    )
    budget_gib: float = option(
        4.0,
        "GiB of device memory for images; a larger data set is streamed from the host.",
        Range(0, 2**20, "no devices hold a pebibyte"),
    )
    workers: int = option(
        0,
        "Processes that decode streamed images; 0 decodes in threads of the main process.",
        Range(0, 1024, "each is a process, and no machine has that many cores"),
    )

    def decode_options(self) -> DecodeOptions:
        """Makes the options for turning image files into pixels.

        Returns:
          The options, as `vpns_jax.data` takes them.

        Raises:
          UserError: a value is not allowed.
        """
        return DecodeOptions(self.exif, self.grey_range, self.max_megapixels)

    def check(self, path: str) -> None:
        """Checks the keys about decoding.

        Args:
          path: the name of this group, such as "config.data".

        Raises:
          UserError: a value is not allowed.
        """
        with at(path):
            self.decode_options()


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The grid of devices; see `sharding.make_mesh`."""

    data: int = option(
        -1, "Devices on the axis over which only batches are split; -1 divides all devices by fsdp.", ranges.DEVICES
    )
    fsdp: int = option(
        1, "Devices on the axis over which weights are split, too; -1 divides all devices by data.", ranges.DEVICES
    )

    def check(self, path: str) -> None:
        """Checks the lengths of the axes.

        Args:
          path: the name of this group, such as "config.mesh".

        Raises:
          UserError: an axis is 0, or both are -1.
        """
        for axis, length in dataclasses.asdict(self).items():
            if length == 0:
                raise UserError(f"{path}.{axis} is {length}; it must be at least 1, or -1, what the other leaves")
        if self.data == self.fsdp == -1:
            raise UserError(f"{path}.data and {path}.fsdp are -1; only one of them can be what the other leaves")
