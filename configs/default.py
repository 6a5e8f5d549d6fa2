"""Every key and its meaning: VPNs on CIFAR-10 with ResNet-18, as in the paper. Other configs start from here.

python main.py --config=configs/default.py --workdir=runs/default --config.densities="(0.2, 0.1)"
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The defaults of every experiment."""
    config = ConfigDict()
    # The title of the report; where --workdir is not given, the run's folder is runs/NAME.
    config.name = "default"
    # What is run, each at every density with every seed: "vpns" and "dense", "random", "magnitude", "snip", "grasp",
    # "synflow", "imp", "hydra", "hydra_layerwise", "bip", "transfer"; each of these also with "+prompt" after it, or
    # "+posthoc": then the prompt alone is fitted on the finished network.
    config.methods = ("vpns",)
    # The shares of weights that are kept.
    config.densities = (0.1,)
    # Everything is run once with each; the order of the images and all that is drawn by lot follow from it.
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
    # Epochs between checkpoints to resume from.
    config.checkpoint_every_epochs = 5
    # Within epochs too, where the data stream in from the host; 0 for none.
    config.checkpoint_every_steps = 500

    # The network, its weights, and what of it may be pruned.
    config.model = ConfigDict()
    # One of docs/models.md's networks.
    config.model.name = "resnet18"
    # Passed to the model where they are set; which of them it takes, docs/models.md says.
    config.model.options = ConfigDict()
    config.model.options.width = placeholder(float)
    config.model.options.stem = placeholder(str)
    config.model.options.dropout = placeholder(float)
    config.model.options.dtype = placeholder(str)
    # A local file, a hub id such as "hf://timm/resnet18.tv_in1k", "default" for the published weights of the model,
    # or "pretrain" to train the source network here.
    config.model.weights = "default"
    # Which weights of a file that holds several: a checkpoint's entry, such as "model_ema", or how names begin.
    config.model.weights_key = ""
    # Globs over the file's tensors to leave unused.
    config.model.ignore = ()
    # Globs over the network's parameters to start afresh, such as "head".
    config.model.dont_load = ()
    # What images in [0, 1] are normalized by, a value a channel; () for what the weights were trained with, as a
    # config.json beside them says, or as the published weights of the network expect.
    config.model.mean = ()
    # The deviation of each channel, with mean.
    config.model.std = ()
    # Globs over the prunable kernels' paths, such as ("layer4_*",); no include takes all.
    config.model.prune_include = ()
    # Globs over the paths of those that stay dense.
    config.model.prune_exclude = ()

    # Only read where model.weights is "pretrain".
    config.pretrain = ConfigDict()
    # The data set; it must have at least as many classes as the downstream one.
    config.pretrain.data = "fonts62"
    # How long it is trained.
    config.pretrain.epochs = 20
    # Images in a batch.
    config.pretrain.batch_size = 128
    # The seed of its first weights and of the order of the images.
    config.pretrain.seed = 0
    # Its optimizer.
    config.pretrain.weights = sgd(0.05)

    # The downstream data set.
    config.data = ConfigDict()
    # One of docs/data.md's data sets, or "folder:/path" of images, a class a sub-folder.
    config.data.name = "cifar10"
    # Images are resized to this; where it is less than the canvas, zeros surround them.
    config.data.image_size = 224
    # Images in a batch, over all devices.
    config.data.batch_size = 256
    # Held out of the training split where the data set has no validation split of its own.
    config.data.val_fraction = 0.1
    # Where data sets are prepared; "" is $TFDS_DATA_DIR, or ~/tensorflow_datasets.
    config.data.directory = ""
    # Whether images are turned as the camera's note on orientation says: "on", "off", or "auto", on for folders.
    config.data.exif = "auto"
    # Which levels of 16-bit greyscale are black and white: "full" (0 and 65535), "measured" (the darkest and the
    # brightest of a folder), or "auto", measured where no image uses the upper half.
    config.data.grey_range = "auto"
    # A larger JPEG is decoded at a part of its size, another large image is unreadable.
    config.data.max_megapixels = 64.0
    # A set whose images take no more than this lives on the devices; a larger one streams from the host.
    config.data.budget_gib = 4.0
    # Processes that decode a streamed set; with 0, threads of the main one do.
    config.data.workers = 0

    # The devices as a grid, with -1 for what the other leaves. Batches are split over both; over fsdp so are weights,
    # scores, masks and the optimizers' moments. A run may go on with other values, and on another number of devices.
    config.mesh = ConfigDict()
    # Devices over which batches are split, and nothing else.
    config.mesh.data = -1
    # Devices over which weights are split, too.
    config.mesh.fsdp = 1

    # The visual prompt of the methods that have one.
    config.prompt = ConfigDict()
    # "pad", "expand" (both of pad_size), "corner", "random" (both of patch_size), "none".
    config.prompt.kind = "pad"
    # The side of the network's input.
    config.prompt.canvas_size = 224
    # The width of a frame, in pixels.
    config.prompt.pad_size = 16
    # The side of a square, in pixels.
    config.prompt.patch_size = 115
    # "raw", "sigmoid", "tanh"; "" takes the released code's for the kind.
    config.prompt.parametrization = ""
    # "hard" or "straight_through".
    config.prompt.clamp = "hard"
    # Where it is learned: "both", "retrain" (pruning has none) or "prune" (it helps to find the mask, and is
    # dropped).
    config.prompt.stage = "both"

    # Which pretrained class speaks for each class of the data set.
    config.mapping = ConfigDict()
    # "frequency", "iterative" (anew every epoch), "random", "head" (a new linear layer, never pruned).
    config.mapping.kind = "frequency"
    # Estimated on the "sparse" network or the "dense" one.
    config.mapping.network = "sparse"

    # Stage 1: scores and prompt, weights frozen.
    config.prune = ConfigDict()
    # How long the scores are learned.
    config.prune.epochs = 30
    # "update" (batch statistics, running ones move), "prompted" (only in prompted passes), "frozen". Passes that
    # leave them alone run as in evaluation, without dropout too.
    config.prune.batch_norm = "update"
    # The optimizer of the scores.
    config.prune.scores = adam(1e-4)
    # The prompt's optimizer.
    config.prune.prompt = adam(1e-4)
    # A new head's. Only read where mapping.kind is "head".
    config.prune.head = adam(1e-3)

    # SNIP and GraSP.
    config.scoring = ConfigDict()
    # How many training batches weights are scored on.
    config.scoring.batches = 10
    # GraSP divides the logits by it.
    config.scoring.temperature = 200.0

    # SynFlow.
    config.synflow = ConfigDict()
    # How many rounds, each of which prunes a little.
    config.synflow.rounds = 100

    # Iterative magnitude pruning: each round trains, drops a share of what is left, and rewinds.
    config.imp = ConfigDict()
    # How long a round trains, by retrain's rules.
    config.imp.epochs = 30
    # The share of what is left that a round drops.
    config.imp.drop = 0.2
    # A round starts from the pretrained weights or, if this is not 0, from that epoch of dense training.
    config.imp.rewind_epochs = 0

    # BiP: for prune.epochs, with prune.prompt's rule.
    config.bip = ConfigDict()
    # The mask's gradient contains -m g^2 / gamma.
    config.bip.gamma = 1.0
    # The optimizer of the lower level.
    config.bip.weights = sgd(0.01)
    # The optimizer of the upper level.
    config.bip.scores = sgd(0.1)

    # Method "transfer".
    config.transfer = ConfigDict()
    # The CELL.safetensors of an earlier run of this network, on whatever data, that has the mask.
    config.transfer.mask = ""

    # Stage 2: weights and prompt, mask frozen.
    config.retrain = ConfigDict()
    # How long the network is trained under its mask.
    config.retrain.epochs = 30
    # The weights' optimizer.
    config.retrain.weights = sgd(0.01)
    # The prompt's optimizer.
    config.retrain.prompt = sgd(0.01)

    # Read by experiments.sweep: values for methods to choose from, on validation.
    config.tuning = ConfigDict()
    # The density that values are tried at.
    config.tuning.density = 0.1
    # The seed that they are tried with.
    config.tuning.seed = 0
    # grid(key, values, methods) each, such as grid("prune.scores.learning_rate", (1e-4, 1e-3), ("vpns", "hydra")).
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
    # The largest that the schedule comes to.
    rule.learning_rate = learning_rate
    # SGD's factor on the step before.
    rule.momentum = momentum
    # The factor of the L2 penalty, or of the decay.
    rule.weight_decay = 1e-4
    # "coupled" (added to the gradient), "decoupled" (to the update, or the optimizer's own), "none".
    rule.decay = "coupled"
    # "cosine_epochs", "cosine_steps", "constant".
    rule.schedule = "cosine_epochs"
    # Epochs in which the learning rate rises linearly from zero.
    rule.warmup_epochs = 0.0
    # The gradient's norm is cut to this, group by group; 0 for none.
    rule.clip_norm = 0.0
    # Arguments of an optimizer of optax, such as {"b1": 0.95}.
    rule.arguments = ConfigDict()
    return rule
