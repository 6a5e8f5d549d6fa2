"""The groups of a configuration: of each key the type, the default, what it means, and what is allowed."""

import dataclasses
from typing import Any

from vpns_jax import models
from vpns_jax.data import DecodeOptions
from vpns_jax.errors import UserError, check_name, short
from vpns_jax.experiment import ranges
from vpns_jax.options import Range, at, option
from vpns_jax.prompting import Prompt, create, label_mapping, prompts
from vpns_jax.pruners import imp
from vpns_jax.training import optim, steps


@dataclasses.dataclass(frozen=True)
class RuleConfig:
    """One group's optimizer; see `optim.Rule`."""

    optimizer: str = option("adam", '"adam" (which does not read momentum) or "sgd".')
    learning_rate: float = option(1e-4, "The largest that the schedule comes to.", ranges.LEARNING_RATE)
    momentum: float = option(0.0, "SGD's factor on the step before.", ranges.MOMENTUM)
    weight_decay: float = option(1e-4, "The factor of the L2 penalty, or of the decay.", ranges.WEIGHT_DECAY)
    decay: str = option("coupled", '"coupled" (added to the gradient), "decoupled" (to the update), "none".')
    schedule: str = option("cosine_epochs", '"cosine_epochs", "cosine_steps", "constant".')
    warmup_epochs: float = option(0.0, "Epochs in which the learning rate rises linearly from zero.", ranges.WARMUP)

    def rule(self, *, epochs: int, updates_per_epoch: int) -> optim.Rule:
        """The rule of a stage of that length; raises `UserError` on a bad value."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return optim.Rule(**fields, epochs=epochs, updates_per_epoch=updates_per_epoch)

    def check(self, path: str) -> None:
        """Raises `UserError` if no optimizer can be made of it."""
        with at(path):
            self.rule(epochs=1, updates_per_epoch=1)


def adam(learning_rate: float) -> RuleConfig:
    """The paper's Adam: L2 coupled into the gradient, cosine to zero, epoch by epoch."""
    return RuleConfig("adam", learning_rate)


def sgd(learning_rate: float) -> RuleConfig:
    """The paper's SGD with momentum."""
    return RuleConfig("sgd", learning_rate, momentum=0.9)


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
    epochs: int = option(20, "How long it is trained.", ranges.EPOCHS)
    batch_size: int = option(128, "Images in a batch.", ranges.BATCH_SIZE)
    seed: int = option(0, "The seed of its first weights and of the order of the images.", ranges.SEED)
    weights: RuleConfig = option(sgd(0.05), "Its optimizer.")


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
        tuple(prompts.KINDS),
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

    epochs: int = option(30, "How long the scores are learned.", ranges.EPOCHS)
    batch_norm: str = option(
        "update",
        '"update" (batch statistics, running ones move), "prompted" (only in prompted passes), "frozen". Passes that '
        "leave them alone run as in evaluation, without dropout too.",
        steps.BATCH_NORMS,
    )
    scores: RuleConfig = option(adam(1e-4), "The optimizer of the scores.")
    prompt: RuleConfig = option(adam(1e-4), "The prompt's optimizer.")
    head: RuleConfig = option(adam(1e-3), 'A new head\'s. Only read where mapping.kind is "head".')


@dataclasses.dataclass(frozen=True)
class ScoringConfig:
    """What SNIP and GraSP score weights on."""

    batches: int = option(
        10,
        "How many training batches weights are scored on.",
        Range(1, 1_000_000, "that is more than an epoch of any data set here"),
    )
    temperature: float = option(
        200.0,
        "GraSP divides the logits by it.",
        Range(1e-6, 1e6, "", must="it must be above zero, from 1e-6 to 1e6: beyond, float32 sees no difference"),
    )


@dataclasses.dataclass(frozen=True)
class SynflowConfig:
    """SynFlow; see `pruners.synflow`."""

    rounds: int = option(
        100, "How many rounds, each of which prunes a little.", Range(1, 10_000, "each is a pass through the network")
    )


@dataclasses.dataclass(frozen=True)
class ImpConfig:
    """Iterative magnitude pruning; see `pruners.imp`."""

    epochs: int = option(30, "How long a round trains, by retrain's rules.", ranges.EPOCHS)
    drop: float = option(
        0.2,
        "The share of what is left that a round drops.",
        Range(1e-4, 1, "", "[)", must="it must lie in [0.0001, 1), a share of what is left; less takes 10,000 rounds"),
    )
    rewind_epochs: int = option(
        0,
        "A round starts from the pretrained weights or, if this is not 0, from that epoch of dense training.",
        Range(0, 100_000, "no round has that many epochs"),
    )

    def check(self, path: str) -> None:
        """Raises `UserError` if rounds rewind to where they do not come by."""
        if not self.rewind_epochs < self.epochs:
            raise UserError(
                f"{path}.rewind_epochs is {self.rewind_epochs}; "
                f"with {path}.epochs = {self.epochs} it allows 0 ... {self.epochs - 1}"
            )

    def check_rounds(self, density: float, path: str) -> None:
        """Raises `UserError` if it takes more epochs to get to a density than there can be."""
        rounds = imp.rounds(density, self.drop)
        if rounds * self.epochs > ranges.EPOCHS.most:
            raise UserError(
                f"{path}.drop is {self.drop}: density {density:g} takes {rounds:,} rounds of {self.epochs:,} epochs; "
                f"at most {ranges.EPOCHS.most:,} epochs are allowed: {ranges.EPOCHS.why}"
            )


@dataclasses.dataclass(frozen=True)
class BipConfig:
    """BiP; see `pruners.bilevel`."""

    gamma: float = option(
        1.0,
        "The mask's gradient contains -m g^2 / gamma.",
        Range(1e-9, 1e9, "", must="it must be above zero, from 1e-9 to 1e9: beyond, float32 sees one term alone"),
    )
    weights: RuleConfig = option(sgd(0.01), "The optimizer of the lower level.")
    scores: RuleConfig = option(sgd(0.1), "The optimizer of the upper level.")


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """The mask that is given; see `pruners.transfer`."""

    mask: str = option(
        "",
        "The CELL.safetensors of an earlier run of this network, on whatever data, that has the mask.",
        ranges.maybe_path,
    )


@dataclasses.dataclass(frozen=True)
class RetrainConfig:
    """Stage 2."""

    epochs: int = option(30, "How long the network is trained under its mask.", ranges.EPOCHS)
    weights: RuleConfig = option(sgd(0.01), "The weights' optimizer.")
    prompt: RuleConfig = option(sgd(0.01), "The prompt's optimizer.")


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

    density: float = option(0.1, "The density that values are tried at.", ranges.DENSITY)
    seed: int = option(0, "The seed that they are tried with.", ranges.SEED)
    grids: tuple[GridConfig, ...] = option(
        (),
        'grid(key, values, methods) each, such as grid("prune.scores.learning_rate", (1e-4, 1e-3), ("vpns", "hydra")).',
    )
