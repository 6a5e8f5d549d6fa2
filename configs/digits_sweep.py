"""All pruners at six sparsities with five seeds, small enough for a laptop: printed characters to digits.

    python -m experiments.sweep --config=configs/digits_sweep.py --workdir=runs/digits_sweep --jobs=2

The source network is the quickstart's.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    """Nine pruners and the dense network."""
    config = quickstart.get_config()
    config.name = "digits_sweep"
    config.methods = ("dense", "vpns", "hydra", "random", "magnitude", "snip", "grasp", "synflow", "imp", "bip")
    config.densities = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
    config.seeds = (7, 9, 17, 23, 42)
    config.data.name = "digits"
    config.prune.epochs = 6
    config.retrain.epochs = 6
    # 18 rounds lead to 98%: together they cost as much as six stages of the others.
    config.imp.epochs = 2
    return config
