"""Channels instead of single weights: printed characters to digits, five seeds, half and three tenths of the channels.

    python main.py --config=configs/channels.py --workdir=runs/channels

The source network is the quickstart's. All methods get the same number of passes.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    """VPNs and HYDRA beside channels by lot, by magnitude, and by SNIP on the gate."""
    config = quickstart.get_config()
    config.name = "channels"
    config.methods = ("vpns", "hydra", "random", "magnitude", "snip")
    config.densities = (0.5, 0.3)
    config.seeds = (7, 9, 17, 23, 42)
    config.granularity = "channel"
    config.budget = "matched"
    return config
