"""The lengths of stages when every method gets the same number of passes."""

import pytest

from tests.pruners import cells
from vpns_jax.errors import UserError
from vpns_jax.experiment import budget, config
from vpns_jax.pruners import METHODS


def epochs(name, density=0.1, **changes):
    epochs = budget.epochs(config.parse(cells.tree(prune__epochs=6, retrain__epochs=8, **changes)), name, density)
    return epochs.prune, epochs.round, epochs.retrain, epochs.posthoc


def test_by_itself_every_method_has_the_stages_of_the_config():
    assert epochs("magnitude") == (0, 0, 8, 0)
    assert epochs("vpns") == (6, 0, 8, 0)
    assert epochs("bip+prompt") == (6, 0, 8, 0)
    assert epochs("hydra+posthoc") == (6, 0, 8, 8)
    # 0.8^10 is above 0.1, 0.8^11 below.
    assert epochs("imp", imp__epochs=3, imp__rewind_epochs=2) == (2 + 11 * 3, 3, 8, 0)


def test_matched_with_one_pass_an_iteration():
    matched = {"budget": "matched"}
    assert epochs("vpns", **matched) == epochs("hydra", **matched) == (6, 0, 8, 0)
    # Methods that prune without training retrain for longer.
    assert epochs("dense", **matched) == epochs("synflow", **matched) == (0, 0, 14, 0)
    # Two levels take two passes.
    assert epochs("bip", **matched) == (3, 0, 8, 0)
    # The rest is divided equally between weights and prompt.
    assert epochs("magnitude+posthoc", **matched) == (0, 0, 7, 7)
    assert epochs("hydra+posthoc", **matched) == (6, 0, 4, 4)
    # 4 rounds of 1 epoch; the 2 epochs that make no whole round go to retraining.
    assert epochs("imp", imp__drop=0.5, **matched) == (4, 1, 10, 0)
    assert epochs("imp", density=0.5, imp__drop=0.5, imp__epochs=3, imp__rewind_epochs=2, **matched) == (6, 4, 8, 0)


def test_matched_with_two_passes_where_there_is_a_prompt():
    matched = {"budget": "matched", "protocol": "reference"}
    assert epochs("vpns", **matched) == (6, 0, 8, 0)
    assert epochs("hydra", **matched) == (12, 0, 16, 0)
    assert epochs("magnitude", **matched) == (0, 0, 28, 0)
    assert epochs("magnitude+prompt", **matched) == (0, 0, 14, 0)
    # The prompt is learned in only one of the stages.
    assert epochs("vpns", prompt__stage="retrain", **matched) == (12, 0, 8, 0)
    assert epochs("vpns", prompt__stage="prune", **matched) == (6, 0, 16, 0)


@pytest.mark.parametrize("name", [*METHODS, "magnitude+posthoc", "bip+prompt"])
@pytest.mark.parametrize("protocol", ["paper", "reference"])
def test_matched_never_costs_more_than_vpns(name, protocol):
    parsed = config.parse(
        cells.tree(budget="matched", protocol=protocol, prune__epochs=7, retrain__epochs=5, imp__drop=0.5)
    )
    epochs = budget.epochs(parsed, name, 0.1)
    prompted = name == "vpns" or name.endswith("+prompt")
    each = 2 if protocol == "reference" else 1
    per_iteration = each if prompted else 1
    levels = 2 if name.startswith("bip") else 1
    total = epochs.prune * per_iteration * levels + epochs.retrain * per_iteration + epochs.posthoc
    # Less than one epoch is lost to rounding.
    assert each * 12 - 2 < total <= each * 12


def test_too_small_a_budget_is_refused():
    with pytest.raises(UserError, match=r"6 epochs for the 11 rounds of imp at density 0\.1 and 0 to rewind to"):
        epochs("imp", budget="matched")
    parsed = config.parse(cells.tree(prune__epochs=6, retrain__epochs=1, budget="matched"))
    with pytest.raises(UserError, match=r"leaves hydra\+posthoc no epoch"):
        budget.epochs(parsed, "hydra+posthoc", 0.1)
    # Two levels take two passes, and there is one.
    parsed = config.parse(cells.tree(prune__epochs=1, retrain__epochs=8, budget="matched"))
    with pytest.raises(UserError, match=r"leaves bip no epoch to prune; raise config\.prune\.epochs"):
        budget.epochs(parsed, "bip", 0.1)
    with pytest.raises(UserError, match="unknown budget 'equal'; known: own, matched"):
        epochs("vpns", budget="equal")
