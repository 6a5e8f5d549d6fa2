"""How long each stage of a cell is: as the config has it, or so that all methods cost the same.

The unit is a pass, forward and backward, through the network with its optimizer step. VPNs' passes are the measure
of budget "matched": one that prunes without training retrains for as long as VPNs does both, and one whose
iterations take several passes trains for fewer epochs. What scoring takes (SNIP, GraSP, SynFlow: some batches) comes
on top, and is reported.
"""

import dataclasses

from vpns_jax.errors import UserError
from vpns_jax.experiment.schema import Config
from vpns_jax.pruners import Method, imp, method
from vpns_jax.training import steps

BUDGETS = ("own", "matched")


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Epochs of each stage of a cell.

    Attributes:
      prune: of stage prune, all rounds of iterative pruning and what they rewind to among them.
      round: of each of these rounds; 0 where there are none.
      retrain: of stage retrain.
      posthoc: of the prompt that is fitted afterwards; 0 where none is.
    """

    prune: int
    round: int
    retrain: int
    posthoc: int

    @property
    def total(self) -> int:
        """Of all stages."""
        return self.prune + self.retrain + self.posthoc


def epochs(config: Config, name: str, density: float) -> Epochs:
    """How long the stages of method `name` are at a density.

    Raises:
      UserError: the matched budget leaves a round of iterative pruning, or retraining, no epoch.
    """
    chosen = method(name)
    return _matched(config, name, density) if config.budget == "matched" else _own(config, chosen, density)


def has_prompt(config: Config, chosen: Method, stage: str) -> bool:
    """Whether a method has a prompt in stage "prune", "retrain" or "posthoc"."""
    if stage == "posthoc":
        return chosen.posthoc
    return chosen.prompted and config.prompt.stage in (stage, "both")


def _own(config: Config, chosen: Method, density: float) -> Epochs:
    round_ = config.imp.epochs if chosen.trains == "rounds" else 0
    prune = {
        "": 0,
        "learn": config.prune.epochs,
        "levels": config.prune.epochs,
        "rounds": config.imp.rewind_epochs + imp.rounds(density, config.imp.drop) * round_,
    }[chosen.trains]
    return Epochs(prune, round_, config.retrain.epochs, config.retrain.epochs if chosen.posthoc else 0)


def _matched(config: Config, name: str, density: float) -> Epochs:
    """Stage prune gets what VPNs' has; the rest is for retraining, half of it where a prompt is fitted afterwards."""
    chosen = method(name)
    each = len(steps.PROTOCOLS[config.protocol])
    left = each * (config.prune.epochs + config.retrain.epochs)
    prune = round_ = 0
    if chosen.trains:
        a_pass = _passes(config, chosen, "prune") * (2 if chosen.trains == "levels" else 1)
        prune = each * config.prune.epochs // a_pass
        if chosen.trains == "rounds":
            rounds, rewind = imp.rounds(density, config.imp.drop), config.imp.rewind_epochs
            round_ = (prune - rewind) // rounds
            if round_ <= rewind:
                raise UserError(
                    f"config.budget is 'matched', which has {prune} epochs for the {rounds} rounds of {name} at "
                    f"density {density:g} and {rewind} to rewind to; raise config.prune.epochs or config.imp.drop"
                )
            prune = rewind + rounds * round_
        left -= prune * a_pass
    posthoc = left // 2 if chosen.posthoc else 0
    retrain = (left - posthoc) // _passes(config, chosen, "retrain")
    if not retrain or (chosen.posthoc and not posthoc):
        raise UserError(
            f"config.budget is 'matched', which leaves {name} no epoch to retrain; raise config.retrain.epochs"
        )
    return Epochs(prune, round_, retrain, posthoc)


def _passes(config: Config, chosen: Method, stage: str) -> int:
    prompted = has_prompt(config, chosen, stage) and config.prompt.kind != "none"
    return len(steps.passes(config.protocol, prompted=prompted))
