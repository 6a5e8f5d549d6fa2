"""Pretrained weights in and out: strict, every tensor used and every parameter filled."""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import trees
from vpns_jax.errors import UserError
from vpns_jax.models import formats, hub, layouts
from vpns_jax.models.head import HEAD
from vpns_jax.models.layouts import Rule, Shape
from vpns_jax.models.registry import create, default_source

POSITIONS = "params/pos_embedding"


def load_pretrained(
    name: str,
    source: str | os.PathLike[str] | None = None,
    *,
    num_classes: int | None = 1000,
    image_size: int = 224,
    dont_load: Sequence[str] = (),
    ignore: Sequence[str] = (),
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Variables of `create(name, num_classes=num_classes, **options)` with the weights of a file.

    Strict: every tensor of the file is used, every parameter filled, all shapes and dtypes agree and all
    values are finite, but for the exceptions named.

    Args:
      name: one of `names()`.
      source: a local `.safetensors`, `.pth`, `.pt`, `.bin` or `.npz` file, or a hub id such as
        "hf://timm/resnet18.tv_in1k"; by default `default_source(name)`. ResNets and VGGs may be in
        torchvision's or timm's layout, ViTs in timm's or that of the AugReg `.npz` files.
      num_classes: number of logits, that of the file unless the head is not loaded; None takes the file's.
      image_size: side in pixels of the images to come. Position embeddings for another size are resized
        (bicubic with antialiasing, the class token's apart); other networks do not depend on it.
      dont_load: globs of parameters that keep their fresh initialisation instead, such as "head"; what the
        file holds for them may have any shape or be missing.
      ignore: globs of the file's tensors to leave unused, such as "pre_logits/*".
      seed: of the fresh initialisation.
      **options: as for `create`.

    Returns:
      `{"params": ..., "batch_stats": ...}` (the latter only with batch normalisation), float32 arrays.

    Raises:
      UserError: if the file cannot be had or read, or does not fit; lists all that does not fit.
    """
    # Options are checked before anything is fetched.
    model = create(name, num_classes=1 if num_classes is None else num_classes, **options)
    file = hub.resolve(default_source(name) if source is None else source)
    tensors = formats.read(file)
    images = jnp.zeros((1, image_size, image_size, 3))
    if num_classes is None:
        model = create(name, num_classes=_classes_of(model, images, tensors), **options)
    shapes = _shapes(model, images)
    names = {path.split("/", 1)[1]: path for path in shapes}
    fresh = {names[path] for path in trees.select(names, dont_load, what="dont_load")}

    rules = best_layout(model, shapes, tensors)
    wanted = [rule for rule in rules if not fresh.issuperset(rule.paths)]
    unused = {rule.name for rule in rules} - {rule.name for rule in wanted}
    unused |= trees.select(tensors, ignore, what="ignore")
    tensors = {key: tensor for key, tensor in tensors.items() if key not in unused}
    for rule in wanted:
        if POSITIONS in rule.paths and rule.name in tensors:
            tensors[rule.name] = resize_positions(tensors[rule.name], rule.fold)
    problems = mismatches(wanted, tensors)
    if problems:
        raise UserError(f"{file} does not fit {name}: {'; '.join(problems)}")

    leaves: dict[str, Any] = {}
    for rule in wanted:
        tensor = tensors.get(rule.name, np.zeros(rule.fold, rule.dtype))
        leaves |= rule.from_file(tensor, shapes)
    leaves |= initialise(model, images, jax.random.key(seed), fresh)
    return trees.unflatten({path: jnp.asarray(leaves[path]) for path in shapes})


def _shapes(model: nn.Module, images: jax.Array) -> dict[str, Shape]:
    """Of all variables, by path."""
    abstract = trees.flatten(jax.eval_shape(model.init, jax.random.key(0), images))
    return {path: leaf.shape for path, leaf in abstract.items()}


def _classes_of(model: nn.Module, images: jax.Array, tensors: Mapping[str, np.ndarray]) -> int:
    """How many logits the head in a file has; 1 if it has no head, which is for `mismatches` to say."""
    rules = best_layout(model, _shapes(model, images), tensors)
    bias = next(rule for rule in rules if f"params/{HEAD}/bias" in rule.paths)
    found = tensors.get(bias.name, np.zeros(1))
    return max(found.size, 1)


def best_layout(model: nn.Module, shapes: Mapping[str, Shape], tensors: Mapping[str, Any]) -> list[Rule]:
    """The rules of the layout that shares the most names with the file."""
    candidates = [layout(shapes) for layout in layouts.LAYOUTS[type(model)]]
    return max(candidates, key=lambda rules: sum(rule.name in tensors for rule in rules))


def mismatches(rules: Sequence[Rule], tensors: Mapping[str, np.ndarray]) -> list[str]:
    """All that keeps `tensors` from being exactly what `rules` ask for, one phrase each."""
    problems = []
    for rule in rules:
        if rule.name not in tensors:
            if not rule.optional:
                problems.append(f"{rule.name} is missing")
            continue
        tensor = tensors[rule.name]
        if tensor.dtype != rule.dtype:
            problems.append(f"{rule.name} has dtype {tensor.dtype}, expected {rule.dtype}")
        elif tensor.shape != rule.fold:
            hint = ""
            if f"params/{HEAD}/kernel" in rule.paths:
                hint = " (another number of classes? dont_load=('head',) starts a fresh head)"
            problems.append(f"{rule.name} has shape {list(tensor.shape)}, expected {list(rule.fold)}{hint}")
        elif not np.isfinite(tensor).all():
            problems.append(f"{rule.name} has {np.sum(~np.isfinite(tensor))} values that are NaN or infinite")
        elif tensor.dtype == np.int64 and (tensor.min() < 0 or tensor.max() >= 2**31):
            problems.append(f"{rule.name} is {tensor}, not a count below 2**31")
    unused = [name for name in tensors if name not in {rule.name for rule in rules}]
    return problems + [f"{name} is not used" for name in unused]


def resize_positions(embedding: np.ndarray, shape: Shape) -> np.ndarray:
    """Position embeddings `[1, 1 + n, c]` of a square grid for the grid of `shape`, the class token's kept.

    Returned as they are where that is not needed, or not possible (what is wrong is then for `mismatches`
    to say).
    """
    if embedding.shape == shape or embedding.ndim != 3 or embedding.dtype != np.float32:
        return embedding
    old, new = (round((n - 1) ** 0.5) for n in (embedding.shape[1], shape[1]))
    if embedding.shape != (1, 1 + old**2, shape[2]) or shape[1] != 1 + new**2:
        return embedding
    grid = jnp.asarray(embedding[0, 1:]).reshape(old, old, -1)
    resized = jax.image.resize(grid, (new, new, grid.shape[-1]), "cubic", antialias=True)
    return np.concatenate([embedding[:, :1], np.asarray(resized).reshape(1, new**2, -1)], axis=1)


@functools.cache
def _leaves(name: str) -> frozenset[str]:
    """The paths of a network's variables, which no option changes."""
    return frozenset(_shapes(create(name), jnp.zeros((1, 224, 224, 3))))


def new_head(model: nn.Module, rng: jax.Array, *, image_size: int) -> dict[str, jax.Array]:
    """A freshly initialised head of `model`: its `kernel` [c, s] and `bias` [s]."""
    images = jnp.zeros((1, image_size, image_size, 3))
    wanted = {path for path in _shapes(model, images) if path.startswith(f"params/{HEAD}/")}
    return trees.unflatten(initialise(model, images, rng, wanted))["params"][HEAD]


def initialise(model: nn.Module, images: jax.Array, rng: jax.Array, wanted: set[str]) -> dict[str, jax.Array]:
    """Freshly initialised leaves by path, those `wanted` alone: the compiler drops the work for the rest."""
    if not wanted:
        return {}

    def init(rng: jax.Array) -> dict[str, jax.Array]:
        return {p: leaf for p, leaf in trees.flatten(model.init(rng, images)).items() if p in wanted}

    return jax.jit(init)(rng)


def export(name: str, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Variables as a state dict in torchvision's layout (ResNet, VGG) or timm's (ViT).

    What `load_pretrained` made of a file of that layout comes out bit for bit as it was. Where a file left
    out the `num_batches_tracked` of batch normalisation, they come out as zeros.

    Args:
      name: one of `names()`.
      variables: of such a network, with any number of classes, width and image size.

    Returns:
      Fresh NumPy arrays by name, float32 (counts: int64), for `save_safetensors`.

    Raises:
      UserError: if these are not the variables of that network.
    """
    model = create(name)
    leaves = {path: np.asarray(leaf) for path, leaf in trees.flatten(variables).items()}
    expected = _leaves(name)
    if set(leaves) != expected:
        missing, unknown = sorted(expected - set(leaves)), sorted(set(leaves) - expected)
        raise UserError(f"not the variables of {name}: missing {missing}, unknown {unknown}")
    rules = layouts.LAYOUTS[type(model)][0]({path: leaf.shape for path, leaf in leaves.items()})
    return {rule.name: rule.to_file(leaves) for rule in rules}
