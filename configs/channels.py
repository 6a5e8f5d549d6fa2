"""Prunes channels instead of single weights: keeps half and three tenths of the channels, with five seeds.

    python main.py --config=configs/channels.py --workdir=runs/channels

Network and data are those of configs/digits.py. VPNs and HYDRA learn scores for 20 epochs, and then all methods
retrain for 6. With `--config.budget=matched` all train for as many passes.
"""

from ml_collections import ConfigDict

from configs import default, digits


def get_config() -> ConfigDict:
    """Makes the config for comparing VPNs and HYDRA with random and magnitude pruning of channels.

    Returns:
      A new config, which the caller may change.
    """
    config = digits.get_config()
    config.name = "channels"
    config.methods = ("vpns", "hydra", "random", "magnitude")
    config.densities = (0.5, 0.3)
    config.seeds = (7, 9, 17, 23, 42)
    config.granularity = "channel"
    # Adam moves all scores by about the same amount, whatever a channel is worth.
    config.prune.scores = default.sgd(0.1)
    # At three tenths of the channels, the loss of the scores still falls after 6 epochs.
    config.prune.epochs = 20
    return config
