"""A layer's own parameters: the bias and the batch normalization that directly follow its kernel."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from vpns_jax.models.tracing.spaces import Draft, Spaces
from vpns_jax.models.tracing.values import Open, State, Value

STATS = "batch_stats/"
# Random numbers for each parameter, by its path; see `pointwise`.
Samples = Mapping[str, np.ndarray]


def apply(spaces: Spaces, name: str, state: State, value: Value, *, first: bool, samples: Samples) -> State | None:
    """Applies a vector of parameters to what a layer has just written.

    Args:
      spaces: the tensors; the layer's bias or normalization is noted there.
      name: the primitive.
      state: the layer's output, open.
      value: the vector, with one number for each channel.
      first: whether the layer's output is the primitive's first operand.
      samples: those of all parameters.

    Returns:
      The output after that, open until something follows that cannot be the layer's own. None if this cannot be.
    """
    before = state.open
    if before is None or not _fits(name, before, value, first=first):
        return None
    factor, shift = before.factor, before.shift
    if name in ("add", "sub"):
        shift = shift + value.sample if name == "add" else shift - value.sample
    else:
        by = value.sample if name == "mul" else 1 / value.sample
        factor, shift = factor * by, shift * by
    after = Open(before.writer, factor, shift, before.paths | value.paths)
    draft = spaces.writers[after.writer]
    for path in value.paths:
        spaces.use(path, ("own", after.writer), draft.space)
    if not draft.bias and _is_bias(after, samples):
        draft.bias, draft.shift = min(after.paths).removeprefix("params/"), after.shift
    elif _is_norm(draft, after, samples):
        draft.endings.add(after.paths)
        return dataclasses.replace(state, open=None)
    return dataclasses.replace(state, open=after)


def close(spaces: Spaces, state: State) -> State:
    """Ends the list of a layer's own parameters.

    Args:
      spaces: the tensors. If parameters cannot be a bias or a batch normalization, the layer's channels are fixed.
      state: the layer's output.

    Returns:
      The output, closed.
    """
    if state.open is None:
        return state
    draft = spaces.writers[state.open.writer]
    paths = state.open.paths
    draft.endings.add(paths)
    bias = {f"params/{draft.bias}"} if draft.bias else set()
    if rest := paths - bias:
        spaces.fix(draft.space, f"{min(rest)} is no bias and no part of a batch normalization with scale and bias")
    elif paths and not _adds(state.open, draft.shift):
        spaces.fix(draft.space, f"{min(paths)} is not just added to its channels once")
    else:
        return dataclasses.replace(state, open=None)
    # Even if another use of the output makes them its bias or normalization.
    for path in paths:
        spaces.use(path, "other", None)
    return dataclasses.replace(state, open=None)


def _fits(name: str, before: Open, value: Value, *, first: bool) -> bool:
    """Whether the operation can be a part of a bias or of a normalization. A factor alone is no part of either."""
    if name not in ("add", "sub", "mul", "div") or (name in ("sub", "div") and not first):
        return False
    return name in ("add", "sub") or any(path.startswith(STATS) for path in value.paths | before.paths)


def _is_bias(after: Open, samples: Samples) -> bool:
    """Whether all that was done is to add one parameter."""
    if len(after.paths) != 1 or not (path := min(after.paths)).startswith("params/"):
        return False
    return _adds(after, samples[path])


def _adds(after: Open, shift: np.ndarray) -> bool:
    """Whether all that was done is to add something."""
    return bool(np.all(after.factor == 1) and np.allclose(after.shift, shift, rtol=1e-12))


def _is_norm(draft: Draft, after: Open, samples: Samples) -> bool:
    """Whether all that was done is a batch normalization, after a bias if there is one; notes it if so."""
    norms = {path.removeprefix(STATS).rpartition("/")[0] for path in after.paths if path.startswith(STATS)}
    if len(norms) != 1:
        return False
    norm = norms.pop()
    paths = [f"params/{norm}/scale", f"params/{norm}/bias", f"{STATS}{norm}/mean", f"{STATS}{norm}/var"]
    rest = after.paths.difference(paths)
    if rest != ({f"params/{draft.bias}"} if draft.bias else set()) or not after.paths.issuperset(paths):
        return False
    scale, bias, mean, var = (samples[path] for path in paths)
    differences = np.square(scale / after.factor) - var
    epsilon = float(f"{differences[0]:.4g}")
    fits = np.allclose(differences, differences[0], atol=1e-9)
    fits &= np.allclose(after.shift, (draft.shift - mean) * after.factor + bias)
    fits &= np.array_equal(np.sign(after.factor), np.sign(scale))
    # In another use of the output, it may add another one.
    fits &= draft.norm != norm or draft.epsilon == epsilon
    if fits:
        draft.norm, draft.epsilon = norm, epsilon
    return bool(fits)
