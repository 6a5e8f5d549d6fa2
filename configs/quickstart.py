"""The quickstart: a ResNet-10 of quarter width, pretrained on printed characters, made sparse for handwritten digits.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

All data come with Python packages. The source network is trained in the first run and kept for later ones.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Makes the config for comparing dense fine-tuning, VPNs, HYDRA and magnitude pruning.

    Returns:
      A new config, which the caller may change.
    """
    config = default.get_config()
    config.name = "quickstart"
    config.methods = ("dense", "vpns", "hydra", "magnitude")
    config.densities = (0.1, 0.05)
    config.checkpoint_every_epochs = 10
    config.fast_compile = True

    config.model.name = "resnet10"
    config.model.options.width = 0.25
    config.model.weights = "pretrain"
    config.pretrain.epochs = 5

    config.data.name = "mnist5k"
    config.data.image_size = 32
    config.data.batch_size = 64
    config.data.val_fraction = 0.2

    config.prompt.canvas_size = 32
    config.prompt.pad_size = 4

    config.prune.epochs = 5
    config.prune.scores.learning_rate = 1e-3
    config.prune.prompt.learning_rate = 1e-2
    config.retrain.epochs = 5
    return config
