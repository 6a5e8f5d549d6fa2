"""Optimizers: one rule a group of parameters, joined by `optax.partition`.

Groups are the top-level keys of a stage's `learned` tree: scores and prompt in stage prune, weights and prompt in
stage retrain. Frozen trees are in no group: they get neither gradient nor transform.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vpns_jax.errors import UserError, check_name

PyTree = Any

OPTIMIZERS = ("adam", "sgd")
# Decay added to the gradient (the released code's), to the update (AdamW's), or not at all.
DECAYS = ("coupled", "decoupled", "none")
# Cosine to zero, moved every epoch (the released code's) or every update, or no schedule.
SCHEDULES = ("cosine_epochs", "cosine_steps", "constant")


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one group is optimised. Hashable; `updates_per_epoch` counts this group's own updates."""

    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    decay: str
    schedule: str
    warmup_epochs: float
    epochs: int
    updates_per_epoch: int

    def __post_init__(self) -> None:
        check_name("optimizer", self.optimizer, OPTIMIZERS)
        check_name("decay", self.decay, DECAYS)
        check_name("schedule", self.schedule, SCHEDULES)
        for name in ("learning_rate", "weight_decay", "warmup_epochs"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{name} is {getattr(self, name)}; it must be zero or more")
        if not 0 <= self.momentum < 1:
            raise UserError(f"momentum is {self.momentum}; it must lie in [0, 1)")


def learning_rate(rule: Rule) -> optax.Schedule:
    """The schedule: updates so far -> learning rate. `lr (1 + cos(pi e / E)) / 2`, e counted in epochs."""

    def at(count: jax.Array) -> jax.Array:
        epoch = count / rule.updates_per_epoch
        if rule.schedule == "constant":
            scale = jnp.ones(())
        else:
            # In integers: a compiled quotient of floats can fall just short of the epoch that begins.
            e = count // rule.updates_per_epoch if rule.schedule == "cosine_epochs" else epoch
            scale = (1 + jnp.cos(jnp.pi * jnp.minimum(e / rule.epochs, 1))) / 2
        warmup = jnp.minimum((epoch + 1 / rule.updates_per_epoch) / rule.warmup_epochs, 1) if rule.warmup_epochs else 1
        return rule.learning_rate * scale * warmup

    return at


def transform(rule: Rule) -> optax.GradientTransformation:
    """The optax chain of one rule; Adam and SGD as in PyTorch."""
    direction = optax.scale_by_adam() if rule.optimizer == "adam" else optax.trace(decay=rule.momentum)
    decay = optax.add_decayed_weights(rule.weight_decay)
    steps = {"coupled": (decay, direction), "decoupled": (direction, decay), "none": (direction,)}[rule.decay]
    return optax.chain(*steps, optax.scale_by_learning_rate(learning_rate(rule)))


def joint(rules: tuple[tuple[str, Rule], ...], active: frozenset[str] | None = None) -> optax.GradientTransformation:
    """One transform for all groups of a stage.

    Args:
      rules: (group, rule) pairs; the groups must be exactly the top-level keys of the tree it is used on.
      active: groups that move; None for all. The others keep parameters and optimizer state as they are (the
        reference protocol's plain pass leaves the prompt alone). The state's structure does not depend on it.

    Returns:
      A gradient transformation on dicts with those keys.
    """
    groups = {group for group, _ in rules}

    def labels(tree: PyTree) -> PyTree:
        if set(tree) != groups:
            raise ValueError(f"parameter groups {sorted(tree)} are not those of the optimizer, {sorted(groups)}")
        return {group: jax.tree.map(lambda _, group=group: group, tree[group]) for group in tree}

    return optax.partition(
        {
            group: transform(rule) if active is None or group in active else _held(transform(rule))
            for group, rule in rules
        },
        labels,
    )


def _held(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` with its state, but without moving anything."""

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        del params
        return jax.tree.map(jnp.zeros_like, updates), state

    return optax.GradientTransformation(inner.init, update)
