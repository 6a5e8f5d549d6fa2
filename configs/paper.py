"""Every network x data set of the paper: `--config=configs/paper.py:NETWORK,DATASET`.

    python main.py --config=configs/paper.py:resnet18,cifar100

You can also name any other network of `vpns_jax.models` and any other data set (also `folder:/path`). Data sets that
are not in the paper get its most common batch size.
"""

from ml_collections import ConfigDict

from configs import default

NETWORKS = ("resnet18", "resnet50", "vgg16")
# The batch size of each data set.
DATASETS = {
    "tiny_imagenet": 256,
    "cifar10": 256,
    "cifar100": 256,
    "stanford_cars": 128,
    "oxford_pets": 64,
    "food101": 256,
    "dtd": 64,
    "flowers102": 128,
    "imagenet": 1024,
}


def get_config(cell: str = "resnet18,cifar10") -> ConfigDict:
    """Makes the config with the paper's densities, seeds and schedule for one network and data set.

    Args:
      cell: "NETWORK,DATASET".

    Returns:
      A new config, which the caller may change.

    Raises:
      ValueError: `cell` does not name a network and a data set.
    """
    network, _, dataset = cell.partition(",")
    if not network or not dataset:
        raise ValueError(f"configs/paper.py takes :NETWORK,DATASET, such as :resnet18,cifar100; found {cell!r}")
    config = default.get_config()
    config.name = f"{network}_{dataset.replace('/', '_').replace(':', '_')}"
    config.methods = ("dense", "vpns", "hydra", "magnitude")
    config.densities = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
    config.seeds = (7, 9, 17)
    config.model.name = network
    config.model.weights = "default"
    config.data.name = dataset
    config.data.batch_size = DATASETS.get(dataset, 256)
    return config
