"""Every key and its meaning: VPNs on CIFAR-10 with ResNet-18, as in the paper. Other configs start from here.

python main.py --config=configs/default.py --workdir=runs/default --config.densities="(0.2, 0.1)"
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The defaults of every experiment."""
    config = ConfigDict()
    config.name = "default"
    # What is run: every method at every density (the share of weights kept) with every seed. Methods are "vpns" and
    # "dense", "random", "magnitude", "snip", "grasp", "synflow", "imp", "hydra", "hydra_layerwise", "bip",
    # "transfer"; each of these also with "+prompt" after it, or "+posthoc": then the prompt alone is fitted on the
    # finished network.
    config.methods = ("vpns",)
    config.densities = (0.1,)
    config.seeds = (7,)
    # "paper": one prompted, augmented batch an iteration. "reference": the released code's two batches.
    config.protocol = "paper"
    # "own": every method's stages are as long as below. "matched": all methods get VPNs' passes through the network.
    config.budget = "own"
    # What is kept or pruned: "weight" by weight, or a "kernel" (h x w), "channel" (output; coupled ones as one),
    # "input_channel", "2:4" (any N of M inputs), "block:4x4" (dense layers) at a time. Densities are shares of these.
    config.granularity = "weight"
    # "global" (one threshold), "uniform" (each layer at the density) or "erk" (large layers sparser).
    config.allocation = "global"
    config.checkpoint_every_epochs = 5
    # Within epochs too, where the data stream in from the host; 0 for none.
    config.checkpoint_every_steps = 500

    config.model = ConfigDict()
    config.model.name = "resnet18"
    # Passed to the model where they are set; which of them it takes, docs/models.md says.
    config.model.options = ConfigDict()
    config.model.options.width = placeholder(float)
    config.model.options.stem = placeholder(str)
    config.model.options.dropout = placeholder(float)
    config.model.options.dtype = placeholder(str)
    # A local file, a hub id such as "hf://timm/resnet18.tv_in1k", "default" for the published weights of the model, or
    # "pretrain" to train the source network here.
    config.model.weights = "default"
    # Globs over the prunable kernels' paths, such as ("layer4_*",); no include takes all.
    config.model.prune_include = ()
    config.model.prune_exclude = ()

    # Only read where model.weights is "pretrain".
    config.pretrain = ConfigDict()
    config.pretrain.data = "fonts62"
    config.pretrain.epochs = 20
    config.pretrain.batch_size = 128
    config.pretrain.seed = 0
    config.pretrain.weights = sgd(0.05)

    config.data = ConfigDict()
    config.data.name = "cifar10"
    # Images are resized to this; where it is less than the canvas, zeros surround them.
    config.data.image_size = 224
    config.data.batch_size = 256
    # Held out of the training split where the data set has no validation split of its own.
    config.data.val_fraction = 0.1
    # Where data sets are prepared; "" is $TFDS_DATA_DIR, or ~/tensorflow_datasets.
    config.data.directory = ""
    # A set whose images take no more than this lives on the devices; a larger one streams from the host.
    config.data.budget_gib = 4.0
    # Processes that decode a streamed set; with 0, threads of the main one do.
    config.data.workers = 0

    # The devices as a grid, with -1 for what the other leaves. Batches are split over both; over fsdp so are weights,
    # scores, masks and the optimizers' moments. A run may go on with other values, and on another number of devices.
    config.mesh = ConfigDict()
    config.mesh.data = -1
    config.mesh.fsdp = 1

    config.prompt = ConfigDict()
    # "pad", "expand" (both of pad_size), "corner", "random" (both of patch_size), "none".
    config.prompt.kind = "pad"
    # The side of the network's input.
    config.prompt.canvas_size = 224
    config.prompt.pad_size = 16
    config.prompt.patch_size = 115
    # "raw", "sigmoid", "tanh"; "" takes the released code's for the kind.
    config.prompt.parametrisation = ""
    # "hard" or "straight_through".
    config.prompt.clamp = "hard"
    # Where it is learned: "both", "retrain" (pruning has none) or "prune" (it helps to find the mask, and is dropped).
    config.prompt.stage = "both"

    config.mapping = ConfigDict()
    # "frequency", "iterative" (anew every epoch), "random", "head" (a new linear layer, never
    # pruned).
    config.mapping.kind = "frequency"
    # Estimated on the "sparse" network or the "dense" one.
    config.mapping.network = "sparse"

    # Stage 1: scores and prompt, weights frozen.
    config.prune = ConfigDict()
    config.prune.epochs = 30
    # "update" (batch statistics, running ones move), "prompted" (only in prompted passes), "frozen". Passes that
    # leave them alone run as in evaluation, without dropout too.
    config.prune.batch_norm = "update"
    config.prune.scores = adam(1e-4)
    config.prune.prompt = adam(1e-4)
    # Only read where mapping.kind is "head".
    config.prune.head = adam(1e-3)

    # SNIP and GraSP: training batches that weights are scored on; GraSP divides the logits by the temperature.
    config.scoring = ConfigDict()
    config.scoring.batches = 10
    config.scoring.temperature = 200.0

    config.synflow = ConfigDict()
    config.synflow.rounds = 100

    # Iterative magnitude pruning: each round trains for so many epochs, by retrain's rules, and drops that share of
    # what is left. It rewinds to the pretrained weights or, if rewind_epochs is not 0, to that epoch of dense training.
    config.imp = ConfigDict()
    config.imp.epochs = 30
    config.imp.drop = 0.2
    config.imp.rewind_epochs = 0

    # BiP: for prune.epochs, with prune.prompt's rule; the mask's gradient contains -m g^2 / gamma.
    config.bip = ConfigDict()
    config.bip.gamma = 1.0
    config.bip.weights = sgd(0.01)
    config.bip.scores = sgd(0.1)

    # "transfer": the CELL.safetensors of an earlier run of this network, on whatever data, that has the mask.
    config.transfer = ConfigDict()
    config.transfer.mask = ""

    # Stage 2: weights and prompt, mask frozen.
    config.retrain = ConfigDict()
    config.retrain.epochs = 30
    config.retrain.weights = sgd(0.01)
    config.retrain.prompt = sgd(0.01)

    # Read by experiments.sweep: values for methods to choose from, on validation, at this density and with this seed.
    # grid(key, values, methods), such as grid("prune.scores.learning_rate", (1e-4, 1e-3), ("vpns", "hydra")).
    config.tuning = ConfigDict()
    config.tuning.density = 0.1
    config.tuning.seed = 0
    config.tuning.grids = ()
    return config


def grid(key: str, values: tuple[float, ...], methods: tuple[str, ...] = ()) -> dict[str, Any]:
    """Values of one key, for `config.tuning.grids`; no methods means all."""
    return {"key": key, "values": values, "methods": methods}


def adam(learning_rate: float) -> ConfigDict:
    """The paper's Adam: L2 coupled into the gradient, cosine to zero, epoch by epoch."""
    return _rule("adam", learning_rate, momentum=0.0)


def sgd(learning_rate: float) -> ConfigDict:
    """The paper's SGD with momentum."""
    return _rule("sgd", learning_rate, momentum=0.9)


def _rule(optimizer: str, learning_rate: float, *, momentum: float) -> ConfigDict:
    rule = ConfigDict()
    # "adam" (which does not read momentum), "sgd", or any optimizer of optax by its name, such as "lion" or "adamw".
    rule.optimizer = optimizer
    rule.learning_rate = learning_rate
    rule.momentum = momentum
    rule.weight_decay = 1e-4
    # "coupled" (added to the gradient), "decoupled" (to the update, or the optimizer's own), "none".
    rule.decay = "coupled"
    # "cosine_epochs", "cosine_steps", "constant".
    rule.schedule = "cosine_epochs"
    rule.warmup_epochs = 0.0
    # The gradient's norm is cut to this, group by group; 0 for none.
    rule.clip_norm = 0.0
    # Arguments of an optimizer of optax, such as {"b1": 0.95}.
    rule.arguments = ConfigDict()
    return rule
