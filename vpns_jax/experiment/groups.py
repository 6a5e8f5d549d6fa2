"""The groups of a configuration: of each key the type, the default, what it means, and what is allowed."""

import dataclasses
from typing import Any

from vpns_jax import models
from vpns_jax.data import DecodeOptions
from vpns_jax.errors import UserError, check_name, short
from vpns_jax.experiment import ranges
from vpns_jax.options import EPOCHS, Range, at, option
from vpns_jax.prompting import KINDS, Prompt, create, label_mapping, prompts
from vpns_jax.sparsity import DENSITY
from vpns_jax.training import stage
from vpns_jax.training.optimizers import Optimizer, adam, sgd


def _model_name(value: str, path: str) -> None:
    check_name("model", value, models.names())


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The backbone, its weights, and what of it may be pruned."""

    name: str = option("resnet18", "One of docs/models.md's networks.", _model_name)
    options: dict[str, Any] = option(
        {}, "Passed to the model where they are set; which of them it takes, docs/models.md says."
    )
    weights: str = option(
        "default",
        'A local file, a hub id such as "hf://timm/resnet18.tv_in1k", "default" for the published weights of the '
        'model, or "pretrain" to train the source network here.',
        ranges.maybe_path,
    )
    weights_key: str = option(
        "",
        'Which weights of a file that holds several: a checkpoint\'s entry, such as "model_ema", or how names begin.',
    )
    ignore: tuple[str, ...] = option((), "Globs over the file's tensors to leave unused.")
    dont_load: tuple[str, ...] = option((), 'Globs over the network\'s parameters to start afresh, such as "head".')
    mean: tuple[float, ...] = option(
        (),
        "What images in [0, 1] are normalized by, a value a channel; () for what the weights were trained with, as a "
        "config.json beside them says, or as the published weights of the network expect.",
        Range(-1000, 1000, "images lie in [0, 1]"),
    )
    std: tuple[float, ...] = option((), "The deviation of each channel, with mean.", Range(0, 1000, "", "(]"))
    prune_include: tuple[str, ...] = option(
        (), 'Globs over the prunable kernels\' paths, such as ("layer4_*",); no include takes all.'
    )
    prune_exclude: tuple[str, ...] = option((), "Globs over the paths of those that stay dense.")

    def check(self, path: str) -> None:
        """Raises `UserError` for an option that the model does not take, or weights that cannot be loaded so."""
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

    data: str = option("fonts62", "The data set; it must have at least as many classes as the downstream one.")
    epochs: int = option(20, "How long it is trained.", EPOCHS)
    batch_size: int = option(128, "Images in a batch.", ranges.BATCH_SIZE)
    seed: int = option(0, "The seed of its first weights and of the order of the images.", ranges.SEED)
    weights: Optimizer = option(sgd(0.05), "Its optimizer.")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The downstream data set."""

    name: str = option(
        "cifar10",
        'One of docs/data.md\'s data sets, or "folder:/path" of images, a class a sub-folder.',
        ranges.data_set,
    )
    image_size: int = option(
        224,
        "Images are resized to this; where it is less than the canvas, zeros surround them.",
        ranges.SIDE,
    )
    batch_size: int = option(256, "Images in a batch, over all devices.", ranges.BATCH_SIZE)
    val_fraction: float = option(
        0.1,
        "Held out of the training split where the data set has no validation split of its own.",
        Range(0, 1, "", "()", must="it must lie in (0, 1)"),
    )
    directory: str = option(
        "",
        'Where data sets are prepared; "" is $TFDS_DATA_DIR, or ~/tensorflow_datasets.',
        ranges.maybe_path,
    )
    exif: str = option(
        "auto",
        'Whether images are turned as the camera\'s note on orientation says: "on", "off", or "auto", on for folders.',
    )
    grey_range: str = option(
        "auto",
        'Which levels of 16-bit greyscale are black and white: "full" (0 and 65535), "measured" (the darkest and the '
        'brightest of a folder), or "auto", measured where no image uses the upper half.',
    )
    max_megapixels: float = option(
        64.0,
        "A larger JPEG is decoded at a part of its size, another large image is unreadable.",
        Range(0, 4295, "that is the largest picture that a JPEG can be", "(]"),
    )
    budget_gib: float = option(
        4.0,
        "A set whose images take no more than this lives on the devices; a larger one streams from the host.",
        Range(0, 2**20, "no devices hold a pebibyte"),
    )
    workers: int = option(
        0,
        "Processes that decode a streamed set; with 0, threads of the main one do.",
        Range(0, 1024, "each is a process, and no machine has that many cores"),
    )

    def decode_options(self) -> DecodeOptions:
        """How image files become pixels; raises `UserError` on a bad value."""
        return DecodeOptions(self.exif, self.grey_range, self.max_megapixels)

    def check(self, path: str) -> None:
        """Raises `UserError` for a way of decoding that there is not."""
        with at(path):
            self.decode_options()


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How the devices are laid out; see `sharding.make_mesh`."""

    data: int = option(-1, "Devices over which batches are split, and nothing else.", ranges.DEVICES)
    fsdp: int = option(1, "Devices over which weights are split, too.", ranges.DEVICES)

    def check(self, path: str) -> None:
        """Raises `UserError` for no devices, or if both axes are what the other leaves."""
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
        '"pad", "expand" (both of pad_size), "corner", "random" (both of patch_size), "none".',
        tuple(KINDS),
    )
    canvas_size: int = option(224, "The side of the network's input.", ranges.SIDE)
    pad_size: int = option(16, "The width of a frame, in pixels.", ranges.PROMPT_SIDE)
    patch_size: int = option(115, "The side of a square, in pixels.", ranges.PROMPT_SIDE)
    parametrization: str = option(
        "",
        '"raw", "sigmoid", "tanh"; "" takes the released code\'s for the kind.',
        ("", *prompts.PARAMETRIZATIONS),
        former="parametrisation",
    )
    clamp: str = option("hard", '"hard" or "straight_through".', tuple(prompts.CLAMPS))
    stage: str = option(
        "both",
        'Where it is learned: "both", "retrain" (pruning has none) or "prune" (it helps to find the mask, and is '
        "dropped).",
        ("prune", "retrain", "both"),
    )

    def make(self) -> Prompt:
        """The prompt. Raises `UserError` if it does not fit its canvas."""
        return create(
            self.kind,
            canvas_size=self.canvas_size,
            pad_size=self.pad_size,
            patch_size=self.patch_size,
            parametrization=self.parametrization or None,
            clamp=self.clamp,
        )

    def check(self, path: str) -> None:
        """Raises `UserError` if the prompt does not fit its canvas."""
        with at(path):
            self.make()


@dataclasses.dataclass(frozen=True)
class MappingConfig:
    """The label mapping, and the network it is first estimated on."""

    kind: str = option(
        "frequency",
        '"frequency", "iterative" (anew every epoch), "random", "head" (a new linear layer, never pruned).',
        label_mapping.KINDS,
    )
    network: str = option("sparse", 'Estimated on the "sparse" network or the "dense" one.', ("sparse", "dense"))


@dataclasses.dataclass(frozen=True)
class PruneConfig:
    """Stage 1."""

    epochs: int = option(30, "How long the scores are learned.", EPOCHS)
    batch_norm: str = option(
        "update",
        '"update" (batch statistics, running ones move), "prompted" (only in prompted passes), "frozen". Passes that '
        "leave them alone run as in evaluation, without dropout too.",
        stage.BATCH_NORMS,
    )
    scores: Optimizer = option(adam(1e-4), "The optimizer of the scores.")
    prompt: Optimizer = option(adam(1e-4), "The prompt's optimizer.")
    head: Optimizer = option(adam(1e-3), 'A new head\'s. Only read where mapping.kind is "head".')


@dataclasses.dataclass(frozen=True)
class RetrainConfig:
    """Stage 2."""

    epochs: int = option(30, "How long the network is trained under its mask.", EPOCHS)
    weights: Optimizer = option(sgd(0.01), "The weights' optimizer.")
    prompt: Optimizer = option(sgd(0.01), "The prompt's optimizer.")


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """Values of one key for methods to choose from."""

    methods: tuple[str, ...] = option((), "Which choose; none means all.")
    key: str = option("", "The key, such as prune.scores.learning_rate.")
    values: tuple[float, ...] = option((), "What it may be.")

    def check(self, path: str) -> None:
        """Raises `UserError` if there is nothing to choose from."""
        if not self.values or len(set(self.values)) != len(self.values):
            values = short(self.values)
            raise UserError(
                f"{path}: the grid over {self.key[:80]} is {values}; it must hold at least one value, each once"
            )


@dataclasses.dataclass(frozen=True)
class TuningConfig:
    """What sweeps choose on validation before they run; see `experiments.tuning`."""

    density: float = option(0.1, "The density that values are tried at.", DENSITY)
    seed: int = option(0, "The seed that they are tried with.", ranges.SEED)
    grids: tuple[GridConfig, ...] = option(
        (),
        'grid(key, values, methods) each, such as grid("prune.scores.learning_rate", (1e-4, 1e-3), ("vpns", "hydra")).',
    )
