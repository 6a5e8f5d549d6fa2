"""Ten pruners at six sparsities with five seeds and one budget, small enough for a laptop: from characters to digits.

    python -m experiments.sweep --config=configs/digits_sweep.py --workdir=runs/digits_sweep --jobs=2

Network and source data are those of configs/digits.py.
"""

from ml_collections import ConfigDict

from configs import default, digits


def get_config() -> ConfigDict:
    """Makes the config for ten pruners and the dense network.

    Returns:
      A new config, which the caller may change.
    """
    config = digits.get_config()
    config.name = "digits_sweep"
    config.methods = (
        "dense",
        "vpns",
        "hydra",
        "random",
        "magnitude",
        "snip",
        "fisher",
        "grasp",
        "synflow",
        "imp",
        "bip",
    )
    config.densities = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
    config.seeds = (7, 9, 17, 23, 42)
    config.data.name = "digits"
    # All methods get the same number of passes. IMP then reaches 98% in 6 rounds.
    config.budget = "matched"
    config.imp.drop = 0.5
    # A method that learns scores chooses from nine combinations, any other method from three.
    config.tuning.grids = (
        default.grid("retrain.weights.learning_rate", (0.01, 0.03, 0.1)),
        default.grid("prune.scores.learning_rate", (1e-3, 3e-3, 1e-2), ("vpns", "hydra")),
        default.grid("bip.scores.learning_rate", (0.03, 0.1, 0.3), ("bip",)),
    )
    return config
