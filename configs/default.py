"""All keys and their meanings: VPNs on CIFAR-10 with ResNet-18, as in the paper.

    python main.py --config=configs/default.py --workdir=runs/default --config.densities="(0.2, 0.1)"

Other configs start from this one.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Makes the config with all defaults.

    Returns:
      A new config, which the caller may change.
    """
    config = ConfigDict()
    # The title of the report; without --workdir also the run's folder, runs/NAME.
    config.name = "default"
    # The methods to compare, each at every density with every seed: dense, random, magnitude, snip, fisher, grasp,
    # synflow, imp, hydra, hydra_layerwise, bip, transfer, vpns. METHOD+prompt also learns a prompt, as vpns does;
    # METHOD+posthoc fits a prompt to the finished network.
    config.methods = ("vpns",)
    # The shares of the prunable weights, or of their groups, that are kept.
    config.densities = (0.1,)
    # The seeds of random numbers, such as those for the order of the images; every method is run once with each.
    config.seeds = (7,)
    # What an iteration uses. "paper": one prompted, augmented batch. "reference", as in the released code: a prompted
    # batch without augmentation, then a plain, augmented one.
    config.protocol = "paper"
    # "own": each method trains for the epochs given below. "matched": all methods get as many passes through the
    # network as VPNs.
    config.budget = "own"
    # Which weights are kept or pruned together, as one group: "weight" (each alone), "kernel" (h x w), "channel" (an
    # output channel in all layers that share it), "input_channel", "2:4" (N of every M inputs) or "block:4x4" (in dense
    # layers). Densities are shares of groups.
    config.granularity = "weight"
    # How layers share the density: "global" (one threshold for all), "uniform" (every layer has the density) or "erk"
    # (small layers keep a larger share).
    config.allocation = "global"
    # With granularity "channel": the allowed cost of the network without its pruned channels, such as "macs:0.5" (half
    # of the dense multiply-adds) or "params:0.5" (half of the parameters). The share takes the place of densities.
    config.target = ""
    # Epochs between checkpoints. A killed run loses the epochs since the newest one.
    config.checkpoint_every_epochs = 5
    # Steps between checkpoints within an epoch, for images that are streamed from the host; 0 for none.
    config.checkpoint_every_steps = 500
    # Whether XLA optimizes programs for CPUs less: they compile in less time and run slower, so this is for runs of a
    # few minutes. Accelerators ignore it.
    config.fast_compile = False

    # The network, its weights, and which of them may be pruned.
    config.model = ConfigDict()
    # A network of docs/models.md, or "module:function" or "file.py:function" for a function that makes a network of
    # your own; docs/your_own.md says how.
    config.model.name = "resnet18"
    # Options of the network; docs/models.md lists those of each network. Options that are not set have defaults.
    config.model.options = ConfigDict()
    config.model.options.width = placeholder(float)
    config.model.options.stem = placeholder(str)
    config.model.options.dropout = placeholder(float)
    config.model.options.dtype = placeholder(str)
    config.model.options.widths = placeholder(dict)
    # A local file, a hub id such as "hf://timm/resnet18.tv_in1k", "default" for the published weights of the network
    # (those that a network of your own loads), or "pretrain" to train the source network here.
    config.model.weights = "default"
    # Which weights to load from a file that holds several: an entry, such as "model_ema", or a prefix of names.
    config.model.weights_key = ""
    # Globs over tensors of the file that are not loaded.
    config.model.ignore = ()
    # Globs over parameters of the network that are initialized instead of loaded, such as "head".
    config.model.dont_load = ()
    # The mean of each channel, which is subtracted from images in [0, 1]. () takes the values that the weights were
    # trained with: from a config.json beside them, or those of the network's published weights.
    config.model.mean = ()
    # The standard deviation of each channel, which images are then divided by; set it together with mean.
    config.model.std = ()
    # Globs over paths of kernels that may be pruned, such as ("layer4_*",); () means all.
    config.model.prune_include = ()
    # Globs over paths of kernels that stay dense.
    config.model.prune_exclude = ()

    # How the source network is trained. Only read if model.weights is "pretrain".
    config.pretrain = ConfigDict()
    # The source data set; it must have at least as many classes as the downstream one.
    config.pretrain.data = "fonts62"
    # Epochs of training.
    config.pretrain.epochs = 20
    # Images in a batch, over all devices together.
    config.pretrain.batch_size = 128
    # The seed of the initial weights and of the order of the images.
    config.pretrain.seed = 0
    # The optimizer of the weights.
    config.pretrain.weights = sgd(0.05)

    # The downstream data set.
    config.data = ConfigDict()
    # A data set of docs/data.md, "folder:/path" for a folder of images with a sub-folder for each class, or
    # "module:function" or "file.py:function" for a function of your own.
    config.data.name = "cifar10"
    # The side in pixels to which images are resized; if it is less than the canvas, zeros surround them.
    config.data.image_size = 224
    # Images in a batch, over all devices together.
    config.data.batch_size = 256
    # The share of the training split that is held out for validation, if the data set has no validation split.
    config.data.val_fraction = 0.1
    # The folder of prepared data sets; "" means $TFDS_DATA_DIR, or ~/tensorflow_datasets.
    config.data.directory = ""
    # Whether images are rotated as their EXIF orientation says: "on", "off", or "auto" (on for folders).
    config.data.exif = "auto"
    # Which levels of 16-bit grayscale become black and white: "full" (0 and 65535), "measured" (the darkest and the
    # brightest level in the folder), or "auto" (measured if no image uses the upper half).
    config.data.grey_range = "auto"
    # The largest image, in millions of pixels. A larger JPEG is decoded at a reduced size; any other larger image
    # counts as unreadable.
    config.data.max_megapixels = 64.0
    # GiB of device memory for images; a larger data set is streamed from the host.
    config.data.budget_gib = 4.0
    # Processes that decode streamed images; 0 decodes in threads of the main process.
    config.data.workers = 0

    # The devices as a grid, data x fsdp. Batches are split over both axes; weights, scores, masks and optimizer moments
    # over fsdp only. A run may be resumed with other values, and on another number of devices.
    config.mesh = ConfigDict()
    # Devices on the axis over which only batches are split; -1 divides all devices by fsdp.
    config.mesh.data = -1
    # Devices on the axis over which weights are split, too; -1 divides all devices by data.
    config.mesh.fsdp = 1

    # The visual prompt, for the methods that have one.
    config.prompt = ConfigDict()
    # "pad": A frame of pad_size pixels along the canvas's edges, over the image if that is as large. "expand": A frame
    # of pad_size pixels around a smaller image; both together fill the canvas. "corner": A square of side patch_size
    # in the upper left corner. "random": A square of side patch_size at a random place, a new one for each batch.
    # "none": No prompt: the image alone on its canvas.
    config.prompt.kind = "pad"
    # The side of the network's input, in pixels.
    config.prompt.canvas_size = 224
    # The width of the frame of "pad" and "expand", in pixels.
    config.prompt.pad_size = 16
    # The side of the square of "corner" and "random", in pixels.
    config.prompt.patch_size = 115
    # How parameters become pixels: "raw", "sigmoid" or "tanh"; "" takes what the released code uses for the kind.
    config.prompt.parametrization = ""
    # The gradient of pixels that are clipped to [0, 1]: "hard" (zero) or "straight_through" (as if not clipped).
    config.prompt.clamp = "hard"
    # Where the prompt is learned: "both", "retrain" (pruning has none) or "prune" (it helps to find the mask and is
    # then dropped).
    config.prompt.stage = "both"

    # Which source class stands for each class of the data set.
    config.mapping = ConfigDict()
    # "frequency" (the source class that is predicted most often), "iterative" (the same, again every epoch), "random",
    # "head" (a new linear layer, which is never pruned).
    config.mapping.kind = "frequency"
    # The network that predicts the classes for the mapping used in retraining: "sparse" or "dense".
    config.mapping.network = "sparse"

    # Stage 1: scores and prompt are learned; the weights are frozen.
    config.prune = ConfigDict()
    # Epochs of learning the scores.
    config.prune.epochs = 30
    # Batch normalization while scores are learned: "update" (uses batch statistics and updates the running ones),
    # "prompted" (only in passes that the protocol prompts) or "frozen". Passes that do not update run as in evaluation,
    # without dropout.
    config.prune.batch_norm = "update"
    # The optimizer of the scores.
    config.prune.scores = adam(1e-4)
    # The optimizer of the prompt.
    config.prune.prompt = adam(1e-4)
    # The optimizer of a new head. Only read if mapping.kind is "head".
    config.prune.head = adam(1e-3)

    # How SNIP, Fisher and GraSP score weights.
    config.scoring = ConfigDict()
    # Training batches that the scores are averaged over.
    config.scoring.batches = 10
    # GraSP divides the logits by this number.
    config.scoring.temperature = 200.0

    # How SynFlow prunes.
    config.synflow = ConfigDict()
    # Rounds of scoring and pruning; each prunes a part of the remaining weights.
    config.synflow.rounds = 100

    # Iterative magnitude pruning: each round trains, prunes a share of what is left, and rewinds the rest.
    config.imp = ConfigDict()
    # Epochs of a round, with retrain's optimizers.
    config.imp.epochs = 30
    # The share of the remaining weights that a round prunes.
    config.imp.drop = 0.2
    # The epoch of dense training that weights are rewound to; 0 means the pretrained weights.
    config.imp.rewind_epochs = 0

    # BiP: scores and weights are learned in turn, for prune.epochs; the prompt with prune.prompt.
    config.bip = ConfigDict()
    # The factor of the lower level's L2 penalty: the mask's gradient contains -m g^2 / gamma.
    config.bip.gamma = 1.0
    # The optimizer of the weights, which are the lower level.
    config.bip.weights = sgd(0.01)
    # The optimizer of the scores, which are the upper level.
    config.bip.scores = sgd(0.1)

    # Method "transfer": the mask of an earlier run.
    config.transfer = ConfigDict()
    # The file CELL.safetensors of an earlier run of the same network, on any data.
    config.transfer.mask = ""

    # Stage 2: weights and prompt are learned; the mask is frozen.
    config.retrain = ConfigDict()
    # Epochs of training under the mask.
    config.retrain.epochs = 30
    # The optimizer of the weights.
    config.retrain.weights = sgd(0.01)
    # The optimizer of the prompt.
    config.retrain.prompt = sgd(0.01)

    # Hyper-parameters that experiments.sweep chooses on validation.
    config.tuning = ConfigDict()
    # The density at which values are tried.
    config.tuning.density = 0.1
    # The seed with which values are tried.
    config.tuning.seed = 0
    # Grids of values, such as grid("prune.scores.learning_rate", (1e-4, 1e-3), ("vpns", "hydra")): key, values,
    # methods.
    config.tuning.grids = ()
    return config


def grid(key: str, values: tuple[float, ...], methods: tuple[str, ...] = ()) -> dict[str, Any]:
    """Makes one grid for `config.tuning.grids`.

    Args:
      key: the key, such as "prune.scores.learning_rate".
      values: the values to choose from.
      methods: the methods that choose; () means all.

    Returns:
      The grid as a dict.
    """
    return {"key": key, "values": values, "methods": methods}


def adam(learning_rate: float) -> ConfigDict:
    """Makes the paper's Adam: an L2 penalty in the gradient and a cosine schedule to zero, updated every epoch.

    Args:
      learning_rate: the highest learning rate.

    Returns:
      The optimizer's keys.
    """
    return _rule("adam", learning_rate, momentum=0.0)


def sgd(learning_rate: float) -> ConfigDict:
    """Makes the paper's SGD with momentum, with the same penalty and schedule as `adam`.

    Args:
      learning_rate: the highest learning rate.

    Returns:
      The optimizer's keys.
    """
    return _rule("sgd", learning_rate, momentum=0.9)


def _rule(optimizer: str, learning_rate: float, *, momentum: float) -> ConfigDict:
    rule = ConfigDict()
    # "adam", "sgd", or the name of any optimizer of optax, such as "lion" or "adamw".
    rule.optimizer = optimizer
    # The highest learning rate of the schedule.
    rule.learning_rate = learning_rate
    # The momentum of "sgd"; other optimizers do not read it.
    rule.momentum = momentum
    # The factor of the L2 penalty, or of the weight decay.
    rule.weight_decay = 1e-4
    # "coupled" (added to the gradient), "decoupled" (added to the update, or left to the optimizer) or "none".
    rule.decay = "coupled"
    # "cosine_epochs" (a cosine to zero, updated every epoch), "cosine_steps" (updated every step) or "constant".
    rule.schedule = "cosine_epochs"
    # Epochs in which the learning rate rises linearly, from the first update.
    rule.warmup_epochs = 0.0
    # The largest norm of a group's gradient; a larger gradient is scaled down to it. 0 for no clipping.
    rule.clip_norm = 0.0
    # More arguments of an optimizer of optax, such as {"b1": 0.95}.
    rule.arguments = ConfigDict()
    return rule
