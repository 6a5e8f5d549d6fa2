"""ResNet-50 on ImageNet, at one density with one seed.

    python -m vpns_jax.data prepare imagenet   # once; says where the archives must be
    python main.py --config=configs/resnet50_imagenet.py

Its labels need no mapping, but they are mapped nevertheless, as the paper's protocol says.
"""

from ml_collections import ConfigDict

from configs import paper


def get_config() -> ConfigDict:
    """Makes the config for VPNs at one density with one seed.

    Returns:
      A new config, which the caller may change.
    """
    config = paper.get_config("resnet50,imagenet")
    config.name = "resnet50_imagenet"
    config.methods = ("vpns",)
    config.densities = (0.1,)
    config.seeds = (7,)
    config.checkpoint_every_epochs = 1
    # The network was trained on exactly these classes, so the dense network gives the better label mapping.
    config.mapping.network = "dense"
    # 12,811 images, which is enough.
    config.data.val_fraction = 0.01
    config.data.workers = 8
    return config
