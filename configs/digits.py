"""From printed characters to handwritten digits, on data that come with Python packages. Other configs start from this.

    python main.py --config=configs/digits.py --workdir=runs/digits

A ResNet-18 of quarter width is pretrained on characters in the first run, and kept for later ones.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Makes the config for VPNs at 90% sparsity.

    Returns:
      A new config, which the caller may change.
    """
    config = default.get_config()
    config.name = "digits"
    config.checkpoint_every_epochs = 10

    config.model.options.width = 0.25
    config.model.weights = "pretrain"
    config.pretrain.epochs = 6

    config.data.name = "mnist5k"
    config.data.image_size = 32
    config.data.batch_size = 64
    config.data.val_fraction = 0.2

    config.prompt.canvas_size = 32
    config.prompt.pad_size = 4

    config.prune.epochs = 6
    config.prune.scores.learning_rate = 1e-3
    config.prune.prompt.learning_rate = 1e-2
    config.retrain.epochs = 6
    return config
