"""ResNet-50 on ImageNet, where the labels need no mapping but the paper's protocol maps them all the same.

python -m vpns_jax.data prepare imagenet   # once; says where the archives must lie
python main.py --config=configs/resnet50_imagenet.py
"""

from ml_collections import ConfigDict

from configs import paper


def get_config() -> ConfigDict:
    """The paper's cell at one density and seed; a validation split of 1% (12,811 images) is enough here."""
    config = paper.get_config("resnet50,imagenet")
    config.name = "resnet50_imagenet"
    config.methods = ("vpns",)
    config.densities = (0.1,)
    config.seeds = (7,)
    config.checkpoint_every_epochs = 1
    # The network knows these very classes: its labels should not be read off what thresholding leaves of it.
    config.mapping.network = "dense"
    config.data.val_fraction = 0.01
    config.data.workers = 8
    return config
