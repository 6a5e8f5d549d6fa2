"""Optimizers: one optax transformation for each group of parameters, joined by `optax.partition`.

Groups are the top-level keys of what a stage learns: scores and prompt in stage prune, weights and prompt in stage
retrain. Frozen parameters are in no group; they get neither a gradient nor a transformation.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vpns_jax.errors import UserError, check_name, first_line, short
from vpns_jax.options import Range, option

PyTree = Any

# The paper's two optimizers. Only their directions come from optax; decay and schedule are added as in the released
# code.
DIRECTIONS = ("adam", "sgd")
# Where decay is added: to the gradient (as in the released code), to the update (as in AdamW), or nowhere.
DECAYS = ("coupled", "decoupled", "none")
# A cosine to zero that is updated every epoch (as in the released code) or every step, or a constant rate.
SCHEDULES = ("cosine_epochs", "cosine_steps", "constant")
_MOMENTUM = "it must lie in [0, 1)"
# Optimizers of optax that need the loss function, a random key or a constant rate, or are deprecated.
_UNFIT = ("lbfgs", "noisy_sgd", "rprop", "sm3", "optimistic_adam")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long a group is trained, in epochs, and how many updates it gets in each."""

    epochs: int
    updates_per_epoch: int


# In place of every length where the rate is constant, so that stages of all lengths share their compiled programs.
_ANY = Schedule(epochs=1, updates_per_epoch=1)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How one group is optimized; each field says what it means. Hashable."""

    optimizer: str = option(
        "adam",
        '"adam", "sgd", or the name of any optimizer of optax, such as "lion" or "adamw".',
    )
    learning_rate: float = option(
        1e-4,
        "The highest learning rate of the schedule.",
        Range(0, 1e6, "no network survives a step of that size in float32"),
    )
    momentum: float = option(
        0.0, 'The momentum of "sgd"; other optimizers do not read it.', Range(0, 1, "", "[)", must=_MOMENTUM)
    )
    weight_decay: float = option(
        1e-4,
        "The factor of the L2 penalty, or of the weight decay.",
        Range(0, 1e3, "it would shrink weights to nothing in one step"),
    )
    decay: str = option(
        "coupled",
        '"coupled" (added to the gradient), "decoupled" (added to the update, or left to the optimizer) or "none".',
    )
    schedule: str = option(
        "cosine_epochs",
        '"cosine_epochs" (a cosine to zero, updated every epoch), "cosine_steps" (updated every step) or "constant".',
    )
    warmup_epochs: float = option(
        0.0,
        "Epochs in which the learning rate rises linearly, from the first update.",
        Range(0, 100_000, "no stage has that many epochs"),
    )
    clip_norm: float = option(
        0.0,
        "The largest norm of a group's gradient; a larger gradient is scaled down to it. 0 for no clipping.",
        Range(0, 1e9, "no gradient that a network survives is larger"),
    )
    arguments: dict[str, Any] = option({}, 'More arguments of an optimizer of optax, such as {"b1": 0.95}.')

    def __hash__(self) -> int:
        return hash((self.optimizer, self.learning_rate, self.schedule, tuple(sorted(map(str, self.arguments)))))

    def __post_init__(self) -> None:
        if self.optimizer not in DIRECTIONS:
            _check_arguments(self.optimizer, self.arguments)
        elif self.arguments:
            raise UserError(f"arguments are {short(self.arguments)}; {self.optimizer} takes none")
        check_name("decay", self.decay, DECAYS)
        check_name("schedule", self.schedule, SCHEDULES)
        for name in ("learning_rate", "weight_decay", "warmup_epochs", "clip_norm"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{name} is {getattr(self, name)}; it must be zero or more")
        if not 0 <= self.momentum < 1:
            raise UserError(f"momentum is {self.momentum}; it must lie in [0, 1)")
        # Makes the transformation now, so that optax refuses bad arguments before a stage begins.
        make(self, _ANY)


def adam(learning_rate: float) -> Optimizer:
    """Makes the paper's Adam: an L2 penalty in the gradient, and a cosine schedule that is updated every epoch.

    Args:
      learning_rate: the highest learning rate.

    Returns:
      The optimizer.
    """
    return Optimizer("adam", learning_rate)


def sgd(learning_rate: float) -> Optimizer:
    """Makes the paper's SGD with momentum, with the same penalty and schedule as `adam`.

    Args:
      learning_rate: the highest learning rate.

    Returns:
      The optimizer.
    """
    return Optimizer("sgd", learning_rate, momentum=0.9)


def learning_rate(optimizer: Optimizer, length: Schedule) -> optax.Schedule:
    """Makes the schedule: `lr (1 + cos(pi e / E)) / 2`, with e the epochs done of E.

    Args:
      optimizer: the kind of schedule and its numbers.
      length: the length of the training.

    Returns:
      A function from the number of updates done to the learning rate.
    """
    updates = length.updates_per_epoch
    cosine = optax.cosine_decay_schedule(1.0, length.epochs)

    def at(count: jax.Array) -> jax.Array:
        epoch = count / updates
        if optimizer.schedule == "constant":
            scale = jnp.ones(())
        else:
            # An integer division, because a float quotient can fall just below the epoch that begins.
            scale = cosine(count // updates if optimizer.schedule == "cosine_epochs" else epoch)
        warmup = jnp.minimum((epoch + 1 / updates) / optimizer.warmup_epochs, 1) if optimizer.warmup_epochs else 1
        return optimizer.learning_rate * scale * warmup

    return at


# Cached, so that equal transformations are the same object and share their compiled programs.
@functools.cache
def make(optimizer: Optimizer | optax.GradientTransformation, length: Schedule) -> optax.GradientTransformation:
    """Makes the optax transformation of a group.

    Args:
      optimizer: the group's optimizer; or any optax transformation, which is returned unchanged.
      length: the length of the group's training, for the schedule.

    Returns:
      The transformation.

    Raises:
      UserError: optax refuses the optimizer's arguments, or the optimizer has no decay that is "decoupled".
    """
    if not isinstance(optimizer, Optimizer):
        return optimizer
    if optimizer.schedule == "constant" and not optimizer.warmup_epochs and length != _ANY:
        return make(optimizer, _ANY)
    rate, clip = learning_rate(optimizer, length), optax.clip_by_global_norm(optimizer.clip_norm)
    before = (clip,) if optimizer.clip_norm else ()
    decay = optax.add_decayed_weights(optimizer.weight_decay)
    if optimizer.optimizer in DIRECTIONS:
        direction = optax.scale_by_adam() if optimizer.optimizer == "adam" else optax.trace(decay=optimizer.momentum)
        steps = {"coupled": (decay, direction), "decoupled": (direction, decay), "none": (direction,)}[optimizer.decay]
        return optax.chain(*before, *steps, optax.scale_by_learning_rate(rate))
    coupled = (decay,) if optimizer.decay == "coupled" else ()
    return optax.chain(*before, *coupled, _whole(optimizer, rate))


def joint(
    transformations: tuple[tuple[str, optax.GradientTransformation], ...], active: frozenset[str] | None = None
) -> optax.GradientTransformation:
    """Makes one transformation for all groups of a stage.

    The result raises `ValueError` if it is used on a tree with other top-level keys than the groups.

    Args:
      transformations: pairs (group, transformation); the groups must be exactly the top-level keys of the tree.
      active: the groups that are updated; None for all. The others keep their parameters and optimizer state, like the
        prompt in a plain pass. The structure of the state does not depend on it.

    Returns:
      A gradient transformation on dicts with those keys.
    """
    groups = {group for group, _ in transformations}

    def labels(tree: PyTree) -> PyTree:
        if set(tree) != groups:
            raise ValueError(f"parameter groups {sorted(tree)} are not those of the optimizer, {sorted(groups)}")
        return {group: jax.tree.map(lambda _, group=group: group, tree[group]) for group in tree}

    return optax.partition(
        {group: inner if active is None or group in active else _held(inner) for group, inner in transformations},
        labels,
    )


def _held(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transformation with the same state as `inner` that changes nothing."""

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        del params
        return jax.tree.map(jnp.zeros_like, updates), state

    return optax.GradientTransformation(inner.init, update)


def _whole(optimizer: Optimizer, rate: optax.Schedule) -> optax.GradientTransformation:
    """An optimizer of optax. It gets the configured weight decay if `decay` is "decoupled", and otherwise none."""
    factory, arguments = _factory(optimizer.optimizer), dict(optimizer.arguments)
    decays = "weight_decay" in inspect.signature(factory).parameters
    if optimizer.decay == "decoupled" and not decays:
        raise UserError(f"decay is 'decoupled', which {optimizer.optimizer} does not have; it allows coupled and none")
    if decays:
        arguments.setdefault("weight_decay", optimizer.weight_decay if optimizer.decay == "decoupled" else 0.0)
    try:
        made = factory(learning_rate=rate, **arguments)
        # Some arguments are checked by optax only when they are used.
        jax.eval_shape(lambda x: made.update(x, made.init(x), x), jnp.zeros(1))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{optimizer.optimizer} cannot be made of arguments {short(arguments)}: {first_line(error)}"
        ) from error
    return made


def _check_arguments(name: str, arguments: dict[str, Any]) -> None:
    """Checks that optax has the optimizer and that it takes these arguments.

    Raises:
      UserError: it does not.
    """
    allowed = [key for key in inspect.signature(_factory(name)).parameters if key != "learning_rate"]
    unknown = sorted(set(arguments) - set(allowed), key=str)
    if unknown:
        raise UserError(f"arguments hold {short(unknown[0])}; {name} takes {', '.join(allowed)}")


def _factory(name: str) -> Callable[..., optax.GradientTransformation]:
    """The function of optax with that name, which makes a transformation from a learning rate."""
    check_name("optimizer", name, known())
    return getattr(optax, name)


@functools.cache
def known() -> tuple[str, ...]:
    """Lists all optimizers: the paper's two, then those of optax that need only a learning rate.

    Returns:
      Their names.
    """
    names = []
    for name in dir(optax):
        made = getattr(optax, name)
        if name in (*DIRECTIONS, *_UNFIT) or name.startswith(("_", "scale_by")) or not inspect.isfunction(made):
            continue
        parameters = dict(inspect.signature(made).parameters)
        rate = parameters.pop("learning_rate", None)
        required = [p for p in parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        if rate is not None and not required:
            names.append(name)
    return (*DIRECTIONS, *names)
