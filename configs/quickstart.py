"""The quickstart: a ResNet-10 of quarter width, pretrained on printed characters, made sparse for handwritten digits.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

All data come with Python packages. The source network is trained in the first run and kept for later ones.
"""

from ml_collections import ConfigDict

from configs import digits


def get_config() -> ConfigDict:
    """Makes the config for comparing dense fine-tuning, VPNs, HYDRA and magnitude pruning.

    Returns:
      A new config, which the caller may change.
    """
    config = digits.get_config()
    config.name = "quickstart"
    config.methods = ("dense", "vpns", "hydra", "magnitude")
    config.densities = (0.1, 0.05)
    # Most of a short run is compiling.
    config.fast_compile = True
    config.model.name = "resnet10"
    config.pretrain.epochs = 5
    config.prune.epochs = 5
    config.retrain.epochs = 5
    return config
