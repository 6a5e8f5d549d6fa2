"""The groups of a configuration. One field for each key holds its type, default, meaning and allowed values."""

import dataclasses
from typing import Any

from vpns_jax import models
from vpns_jax.data import DecodeOptions
from vpns_jax.errors import UserError, short
from vpns_jax.experiment import ranges
from vpns_jax.options import EPOCHS, Range, at, option
from vpns_jax.prompting import KINDS, Prompt, create, label_mapping, prompts
from vpns_jax.sparsity import DENSITY
from vpns_jax.training import stage
from vpns_jax.training.optimizers import Optimizer, adam, sgd


def _model_name(value: str, path: str) -> None:
    models.entry(value)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The backbone, its weights, and which of them may be pruned."""

    name: str = option(
        "resnet18",
        'A network of docs/models.md, or "module:function" or "file.py:function" for a function that makes a network '
        "of your own; docs/your_own.md says how.",
        _model_name,
    )
    options: dict[str, Any] = option(
        {},
        "Options of the network; docs/models.md lists those of each network. Options that are not set have defaults.",
    )
    weights: str = option(
        "default",
        'A local file, a hub id such as "hf://timm/resnet18.tv_in1k", "default" for the published weights of the '
        'network (those that a network of your own loads), or "pretrain" to train the source network here.',
        ranges.maybe_path,
    )
    weights_key: str = option(
        "",
        'Which weights to load from a file that holds several: an entry, such as "model_ema", or a prefix of names.',
    )
    ignore: tuple[str, ...] = option((), "Globs over tensors of the file that are not loaded.")
    dont_load: tuple[str, ...] = option(
        (), 'Globs over parameters of the network that are initialized instead of loaded, such as "head".'
    )
    mean: tuple[float, ...] = option(
        (),
        "The mean of each channel, which is subtracted from images in [0, 1]. () takes the values that the weights "
        "were trained with: from a config.json beside them, or those of the network's published weights.",
        Range(-1000, 1000, "images lie in [0, 1]"),
    )
    std: tuple[float, ...] = option(
        (),
        "The standard deviation of each channel, which images are then divided by; set it together with mean.",
        Range(0, 1000, "", "(]"),
    )
    prune_include: tuple[str, ...] = option(
        (), 'Globs over paths of kernels that may be pruned, such as ("layer4_*",); () means all.'
    )
    prune_exclude: tuple[str, ...] = option((), "Globs over paths of kernels that stay dense.")

    def check(self, path: str) -> None:
        """Checks that the model takes its options and that the keys about its weights agree.

        Args:
          path: the name of this group, such as "config.model".

        Raises:
          UserError: the model does not take an option, only one of `mean` and `std` is set, or a key about a file of
            weights is set although no file is read.
        """
        with at(f"{path}.options"):
            models.create(self.name, **self.options)
        if self.mean or self.std:
            try:
                models.check_normalization(self.mean, self.std)
            except UserError as error:
                raise UserError(f"{path}.{error}, or () with the other") from error
        for key in ("weights_key", "ignore", "dont_load"):
            if self.weights == "pretrain" and getattr(self, key):
                raise UserError(
                    f"{path}.{key} is {short(getattr(self, key))}; no file is read where weights is 'pretrain'"
                )


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """How the source network is trained here."""

    data: str = option("fonts62", "The source data set; it must have at least as many classes as the downstream one.")
    epochs: int = option(20, "Epochs of training.", EPOCHS)
    batch_size: int = option(128, "Images in a batch, over all devices together.", ranges.BATCH_SIZE)
    seed: int = option(0, "The seed of the initial weights and of the order of the images.", ranges.SEED)
    weights: Optimizer = option(sgd(0.05), "The optimizer of the weights.")


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


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """The visual prompt of the methods that have one; see `prompting.create`."""

    kind: str = option(
        "pad",
        " ".join(f'"{name}": {(kind.__doc__ or "").splitlines()[0]}' for name, kind in KINDS.items()),
        tuple(KINDS),
    )
    canvas_size: int = option(224, "The side of the network's input, in pixels.", ranges.SIDE)
    pad_size: int = option(16, 'The width of the frame of "pad" and "expand", in pixels.', ranges.PROMPT_SIDE)
    patch_size: int = option(115, 'The side of the square of "corner" and "random", in pixels.', ranges.PROMPT_SIDE)
    parametrization: str = option(
        "",
        'How parameters become pixels: "raw", "sigmoid" or "tanh"; "" takes what the released code uses for the kind.',
        ("", *prompts.PARAMETRIZATIONS),
        former="parametrisation",
    )
    clamp: str = option(
        "hard",
        'The gradient of pixels that are clipped to [0, 1]: "hard" (zero) or "straight_through" (as if not clipped).',
        tuple(prompts.CLAMPS),
    )
    stage: str = option(
        "both",
        'Where the prompt is learned: "both", "retrain" (pruning has none) or "prune" (it helps to find the mask and '
        "is then dropped).",
        ("prune", "retrain", "both"),
    )

    def make(self) -> Prompt:
        """Makes the prompt.

        Returns:
          The prompt; it has no parameters yet.

        Raises:
          UserError: the prompt does not fit its canvas.
        """
        return create(
            self.kind,
            canvas_size=self.canvas_size,
            pad_size=self.pad_size,
            patch_size=self.patch_size,
            parametrization=self.parametrization or None,
            clamp=self.clamp,
        )

    def check(self, path: str) -> None:
        """Checks that the prompt fits its canvas.

        Args:
          path: the name of this group, such as "config.prompt".

        Raises:
          UserError: it does not.
        """
        with at(path):
            self.make()


@dataclasses.dataclass(frozen=True)
class MappingConfig:
    """The label mapping: which source class stands for each target class."""

    kind: str = option(
        "frequency",
        '"frequency" (the source class that is predicted most often), "iterative" (the same, again every epoch), '
        '"random", "head" (a new linear layer, which is never pruned).',
        label_mapping.KINDS,
    )
    network: str = option(
        "sparse",
        'The network that predicts the classes for the mapping used in retraining: "sparse" or "dense".',
        ("sparse", "dense"),
    )


@dataclasses.dataclass(frozen=True)
class PruneConfig:
    """Stage 1, prune: scores and prompt are learned."""

    epochs: int = option(30, "Epochs of learning the scores.", EPOCHS)
    batch_norm: str = option(
        "update",
        'Batch normalization while scores are learned: "update" (uses batch statistics and updates the running '
        'ones), "prompted" (only in prompted passes) or "frozen". Passes that do not update run as in evaluation, '
        "without dropout.",
        stage.BATCH_NORMS,
    )
    scores: Optimizer = option(adam(1e-4), "The optimizer of the scores.")
    prompt: Optimizer = option(adam(1e-4), "The optimizer of the prompt.")
    head: Optimizer = option(adam(1e-3), 'The optimizer of a new head. Only read if mapping.kind is "head".')


@dataclasses.dataclass(frozen=True)
class RetrainConfig:
    """Stage 2, retrain: weights and prompt are learned."""

    epochs: int = option(30, "Epochs of training under the mask.", EPOCHS)
    weights: Optimizer = option(sgd(0.01), "The optimizer of the weights.")
    prompt: Optimizer = option(sgd(0.01), "The optimizer of the prompt.")


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """Values of one key from which methods choose."""

    methods: tuple[str, ...] = option((), "The methods that choose; () means all.")
    key: str = option("", "The key, such as prune.scores.learning_rate.")
    values: tuple[float, ...] = option((), "The values to choose from.")

    def check(self, path: str) -> None:
        """Checks that there are values to choose from.

        Args:
          path: the name of this grid, such as "config.tuning.grids[0]".

        Raises:
          UserError: there is no value, or one appears twice.
        """
        if not self.values or len(set(self.values)) != len(self.values):
            values = short(self.values)
            raise UserError(
                f"{path}: the grid over {self.key[:80]} is {values}; it must hold at least one value, each once"
            )


@dataclasses.dataclass(frozen=True)
class TuningConfig:
    """Hyper-parameters that a sweep chooses by validation accuracy before it runs; see `experiments.tuning`."""

    density: float = option(0.1, "The density at which values are tried.", DENSITY)
    seed: int = option(0, "The seed with which values are tried.", ranges.SEED)
    grids: tuple[GridConfig, ...] = option(
        (),
        'Grids of values, such as grid("prune.scores.learning_rate", (1e-4, 1e-3), ("vpns", "hydra")): key, values, '
        "methods.",
    )
