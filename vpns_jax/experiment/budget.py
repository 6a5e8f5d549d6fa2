"""How long each stage of a cell is: as the config has it, or so that all methods cost the same.

The unit is a pass, forward and backward, through the network with its optimizer step. VPNs' passes are the measure
of budget "matched": one that prunes without training retrains for as long as VPNs does both, and one whose
iterations take several passes trains for fewer epochs. What scoring takes (SNIP, GraSP, SynFlow: some batches) comes
on top, and is reported.
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
    rounds, rewind = _rounds(config, chosen, density)
    round_ = config.options(chosen).epochs if rounds else 0
    prune = rewind + rounds * round_ if rounds else config.prune.epochs
    return Epochs(
        prune if chosen.training else 0, round_, config.retrain.epochs, config.retrain.epochs if chosen.posthoc else 0
    )


def _rounds(config: Config, chosen: Method, density: float) -> tuple[int, int]:
    """Rounds of training until a density, and epochs that they rewind to; zeros for a pruner that trains once."""
    if chosen.training is None or chosen.training.rounds is None:
        return 0, 0
    options = config.options(chosen)
    return chosen.training.rounds(options, density), options.rewind_epochs


def _matched(config: Config, name: str, density: float) -> Epochs:
    """Stage prune gets what VPNs' has; the rest is for retraining, half of it where a prompt is fitted afterwards."""
    chosen = method(name)
    each = len(passes.PROTOCOLS[config.protocol])
    left = each * (config.prune.epochs + config.retrain.epochs)
    prune = round_ = 0
    if chosen.training:
        a_pass = _passes(config, chosen, "prune") * chosen.training.levels
        prune = each * config.prune.epochs // a_pass
        rounds, rewind = _rounds(config, chosen, density)
        if rounds:
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
    prompted = has_prompt(config, chosen, stage) and config.make_prompt().is_learned
    return len(passes.inputs(config.protocol, prompted=prompted))
