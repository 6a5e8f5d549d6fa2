"""How many epochs each stage of a cell has: as the config says, or so that all methods cost the same.

The unit is a pass: forward and backward through the network, with the optimizer step. With budget "matched" every
method gets as many passes as VPNs. A method that prunes without training retrains for longer, and a method whose
iterations take several passes trains for fewer epochs. The passes for scoring (some batches for SNIP, Fisher,
GraSP and SynFlow) come on top and are reported.
"""

import dataclasses

from vpns_jax.errors import UserError
from vpns_jax.experiment.schema import Config
from vpns_jax.pruners import Method, method
from vpns_jax.training import passes


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Epochs of each stage of a cell.

    Attributes:
      prune: epochs of stage prune, including all rounds of iterative pruning and the training that they rewind to.
      round: epochs of each such round; 0 if there are no rounds.
      retrain: epochs of stage retrain.
      posthoc: epochs of fitting a prompt afterwards; 0 if none is fitted.
    """

    prune: int
    round: int
    retrain: int
    posthoc: int

    @property
    def total(self) -> int:
        """The epochs of all stages together."""
        return self.prune + self.retrain + self.posthoc


def epochs(config: Config, name: str, density: float) -> Epochs:
    """Decides how many epochs each stage of a method has.

    Args:
      config: a checked configuration.
      name: the method's name.
      density: the share of weights to keep.

    Returns:
      The epochs of each stage.

    Raises:
      UserError: the matched budget leaves stage prune, a round of iterative pruning, or retraining no epoch.
    """
    chosen = method(name)
    return _matched(config, name, density) if config.budget == "matched" else _own(config, chosen, density)


def has_prompt(config: Config, chosen: Method, stage: str) -> bool:
    """Says whether a method has a prompt in a stage.

    Args:
      config: a checked configuration.
      chosen: the method.
      stage: "prune", "retrain" or "posthoc".

    Returns:
      True if it has one.
    """
    if stage == "posthoc":
        return chosen.posthoc
    return chosen.prompted and config.prompt.stage in (stage, "both")


def _own(config: Config, chosen: Method, density: float) -> Epochs:
    rounds, rewind = _rounds(config, chosen, density)
    round_ = config.options(chosen).epochs if rounds else 0
    prune = rewind + rounds * round_ if rounds else config.prune.epochs
    return Epochs(
        prune if chosen.training else 0, round_, config.retrain.epochs, config.retrain.epochs if chosen.posthoc else 0
    )


def _rounds(config: Config, chosen: Method, density: float) -> tuple[int, int]:
    """The number of rounds until a density, and the epoch they rewind to; zeros for a pruner that trains once."""
    if chosen.training is None or chosen.training.rounds is None:
        return 0, 0
    options = config.options(chosen)
    return chosen.training.rounds(options, density), options.rewind_epochs


def _matched(config: Config, name: str, density: float) -> Epochs:
    """Divides VPNs' number of passes: stage prune gets as many as VPNs' stage prune, retraining the rest.

    If a prompt is fitted afterwards, it gets half of that rest.
    """
    chosen = method(name)
    per_iteration = len(passes.PROTOCOLS[config.protocol])
    left = per_iteration * (config.prune.epochs + config.retrain.epochs)
    prune = round_ = 0
    if chosen.training:
        own_per_iteration = _passes(config, chosen, "prune") * chosen.training.levels
        prune = per_iteration * config.prune.epochs // own_per_iteration
        rounds, rewind = _rounds(config, chosen, density)
        if rounds:
            round_ = (prune - rewind) // rounds
            if round_ <= rewind:
                raise UserError(
                    f"config.budget is 'matched', which has {prune} epochs for the {rounds} rounds of {name} at "
                    f"density {density:g} and {rewind} to rewind to; raise config.prune.epochs or config.imp.drop"
                )
            prune = rewind + rounds * round_
        if not prune:
            raise UserError(
                f"config.budget is 'matched', which leaves {name} no epoch to prune; raise config.prune.epochs"
            )
        left -= prune * own_per_iteration
    posthoc = left // 2 if chosen.posthoc else 0
    retrain = (left - posthoc) // _passes(config, chosen, "retrain")
    if not retrain or (chosen.posthoc and not posthoc):
        raise UserError(
            f"config.budget is 'matched', which leaves {name} no epoch to retrain; raise config.retrain.epochs"
        )
    return Epochs(prune, round_, retrain, posthoc)


def _passes(config: Config, chosen: Method, stage: str) -> int:
    """The number of passes in an iteration of a stage."""
    prompted = has_prompt(config, chosen, stage) and config.make_prompt().is_learned
    return len(passes.preparations(config.protocol, prompted=prompted))
