"""Scores, exact global selection, and masks: pure functions on trees that know nothing of images."""

from vpns_jax.sparsity.bits import Bits, pack, unpack
from vpns_jax.sparsity.budget import BudgetPattern, Term, cost
from vpns_jax.sparsity.channels import ChannelPattern, channel_parts
from vpns_jax.sparsity.choosing import is_kernel, prunable
from vpns_jax.sparsity.density import DENSITY, check_density
from vpns_jax.sparsity.exchange import SET, RigL
from vpns_jax.sparsity.given import pruned_by
from vpns_jax.sparsity.gmp import GradualMagnitude
from vpns_jax.sparsity.gradual import GradualState, current_mask, gradual
from vpns_jax.sparsity.granularity import Granularity
from vpns_jax.sparsity.granularity import parse as parse_granularity
from vpns_jax.sparsity.keeping import KeepMaskState, keep_mask
from vpns_jax.sparsity.learning import first_scores, with_largest, with_scores
from vpns_jax.sparsity.masks import (
    apply,
    attach_gradient,
    bilevel,
    counted,
    density,
    nonzero,
    prune_lowest,
    prune_smallest,
    pruned_count,
    straight_through,
    threshold,
    topk_mask,
)
from vpns_jax.sparsity.pattern import (
    SINGLE,
    Pattern,
    prune_groups,
    pruned_groups,
    structured_mask,
    validate,
)
from vpns_jax.sparsity.rules import Moves, Rule
from vpns_jax.sparsity.scores import (
    at_least_single,
    bilevel_gradient,
    check_scores,
    connection_sensitivity,
    fisher,
    gradient_flow,
    level,
    magnitude,
    random,
    remaining,
    scaled_init,
)
from vpns_jax.sparsity.selection import kth_smallest
from vpns_jax.sparsity.ties import tied_share
from vpns_jax.trees import overlay, subtree

__all__ = [
    "DENSITY",
    "SET",
    "SINGLE",
    "Bits",
    "BudgetPattern",
    "ChannelPattern",
    "GradualMagnitude",
    "GradualState",
    "Granularity",
    "KeepMaskState",
    "Moves",
    "Pattern",
    "RigL",
    "Rule",
    "Term",
    "apply",
    "at_least_single",
    "attach_gradient",
    "bilevel",
    "bilevel_gradient",
    "channel_parts",
    "check_density",
    "check_scores",
    "connection_sensitivity",
    "cost",
    "counted",
    "current_mask",
    "density",
    "first_scores",
    "fisher",
    "gradient_flow",
    "gradual",
    "is_kernel",
    "keep_mask",
    "kth_smallest",
    "level",
    "magnitude",
    "nonzero",
    "overlay",
    "pack",
    "parse_granularity",
    "prunable",
    "prune_groups",
    "prune_lowest",
    "prune_smallest",
    "pruned_by",
    "pruned_count",
    "pruned_groups",
    "random",
    "remaining",
    "scaled_init",
    "straight_through",
    "structured_mask",
    "subtree",
    "threshold",
    "tied_share",
    "topk_mask",
    "unpack",
    "validate",
    "with_largest",
    "with_scores",
]
