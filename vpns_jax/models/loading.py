"""Loads and exports pretrained weights. Loading is strict: all tensors are used, and all parameters are filled."""

import dataclasses
import functools
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import trees
from vpns_jax.errors import LONGEST, UserError, several, shorten
from vpns_jax.models import fitting, formats, hub, layouts, misfit
from vpns_jax.models.formats import Contents
from vpns_jax.models.head import HEAD
from vpns_jax.models.initializing import initialize, shapes_by_path
from vpns_jax.models.layouts import Layout, Rule, Shape
from vpns_jax.models.registry import create, default_source, is_own, own_weights
from vpns_jax.models.vit import ViT

POSITIONS = "params/pos_embedding"


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A network's variables, read from a file.

    Attributes:
      variables: `{"params": ..., "batch_stats": ...}` (the latter only with batch normalization), float32 arrays.
      file: the weight file.
      layout: the file's layout, such as "vit_torchvision"; for `find_normalization`.
      notes: which tensors were unwrapped, chosen, widened or skipped, for the user.
    """

    variables: dict[str, Any]
    file: Path
    layout: str
    notes: tuple[str, ...]


def load_pretrained(name: str, source: str | os.PathLike[str] | None = None, **arguments: Any) -> dict[str, Any]:
    """Reads pretrained variables with `read_pretrained`, whose notes become warnings in the log `vpns_jax`.

    Args:
      name: the network's name, as for `create`.
      source: a local file or a hub id; None for the default weights.
      **arguments: as for `read_pretrained`.

    Returns:
      `{"params": ..., "batch_stats": ...}` (the latter only with batch normalization), float32 arrays.

    Raises:
      UserError: the file cannot be downloaded or read, or does not fit.
    """
    pretrained = read_pretrained(name, source, **arguments)
    for note in pretrained.notes:
        logging.getLogger("vpns_jax").warning("%s: %s", pretrained.file, note)
    return pretrained.variables


def read_pretrained(
    name: str,
    source: str | os.PathLike[str] | None = None,
    *,
    num_classes: int | None = 1000,
    image_size: int = 224,
    dont_load: Sequence[str] = (),
    ignore: Sequence[str] = (),
    weights_key: str = "",
    seed: int = 0,
    **options: Any,
) -> Pretrained:
    """The variables of `create(name, num_classes=num_classes, **options)`, read from a file.

    Loading is strict: every tensor of the file is used, every parameter is filled, all shapes and dtypes agree and
    all values are finite. The only exceptions are those that `dont_load` and `ignore` name. A prefix that all names
    share is removed, and float16 and bfloat16 are widened to float32.

    Args:
      name: the network's name, as for `create`.
      source: a local `.safetensors`, `.npz`, `.pth`, `.pt`, `.bin`, `.ckpt` or `.pth.tar` file, or a hub id such as
        "hf://timm/resnet18.tv_in1k"; by default `default_source(name)`. Known layouts are those of torchvision and
        timm, for ResNets and ViTs also transformers', and for ViTs also that of the AugReg `.npz` files.
      num_classes: number of logits; it must be the file's unless the head is not loaded. None takes the file's.
      image_size: side in pixels of the images that the network will get. A ViT's position embeddings for another
        size are resized (bicubic with antialiasing; those of learned tokens are kept). Others do not depend on it.
      dont_load: globs of parameters that keep their fresh initialization, such as "head"; the file's tensors for
        them may have any shape or be missing.
      ignore: globs of the file's tensors that are skipped, such as "pre_logits/*".
      weights_key: which weights to take from a file that holds several: an entry of a checkpoint, such as
        "model_ema", or a prefix of the tensors' names. "" prefers averaged weights.
      seed: seed of the fresh initialization.
      **options: as for `create`.

    Returns:
      The variables, and how they were read.

    Raises:
      UserError: the network has no weight layout, or the file cannot be downloaded or read, or does not fit.
        `details` then lists all problems.
    """
    # Layout and options are checked before anything is downloaded.
    check_layout(name, **options)
    model = create(name, num_classes=1 if num_classes is None else num_classes, **options)
    file, contents = _contents(name, source, weights_key, options)
    fitted, shapes = _fit(file, model, image_size, contents, weights_key)
    if num_classes is None:
        model = create(name, num_classes=_classes_of(fitted, contents), **options)
        fitted, shapes = _fit(file, model, image_size, contents, weights_key)
    names = {path.split("/", 1)[1]: path for path in shapes}
    fresh = {names[path] for path in trees.select(names, dont_load, what="dont_load")}
    wanted = [rule for rule in fitted.rules if not fresh.issuperset(rule.paths)]
    passed, notes = _passed_over(fitted, wanted, ignore)
    tensors = {name: contents.tensors[key] for key, name in fitted.names.items() if name not in passed}
    tensors, widened = _widen(wanted, tensors)
    tokens = len(model.tokens) if isinstance(model, ViT) else 1
    for rule in wanted:
        if POSITIONS in rule.paths and rule.name in tensors:
            tensors[rule.name] = resize_positions(tensors[rule.name], rule.fold, tokens)
    problems = misfit.mismatches(wanted, tensors, contents.others)
    if problems:
        raise misfit.error(file, name, type(model), wanted, list(tensors), problems)

    leaves: dict[str, Any] = {}
    for rule in wanted:
        leaves |= rule.from_file(tensors.get(rule.name, np.zeros(rule.fold, rule.dtype)), shapes)
    leaves |= initialize(model, jax.random.key(seed), fresh, image_size=image_size)
    # `jnp.asarray` would compile a program for each shape.
    variables = jax.device_put(trees.unflatten({path: leaves[path] for path in shapes}))
    return Pretrained(variables, file, fitted.layout, (*contents.notes, *fitted.notes, *widened, *notes))


def _contents(
    name: str, source: str | os.PathLike[str] | None, weights_key: str, options: Mapping[str, Any]
) -> tuple[Path, Contents]:
    """The weights of a file, or those that a network of one's own loads itself."""
    loaded = own_weights(name, **options) if source is None else None
    if loaded is not None:
        return Path(f"load() of {name}"), Contents(trees.flatten(loaded))
    file = hub.resolve(default_source(name) if source is None else source)
    return file, formats.read_contents(file, weights_key)


def _fit(
    file: Path, model: nn.Module, image_size: int, contents: Contents, weights_key: str
) -> tuple[fitting.Fit, dict[str, Shape]]:
    """The layout of a file, and the shapes of the network's variables by path."""
    shapes = shapes_by_path(model, image_size=image_size)
    candidates = [(layout.__name__, layout(shapes)) for layout in layouts.LAYOUTS[type(model)]]
    try:
        return fitting.fit(candidates, contents.tensors, "" if contents.key_used else weights_key), shapes
    except UserError as error:
        raise UserError(shorten(f"{file}: {error}", LONGEST)) from error


def _passed_over(
    fitted: fitting.Fit, wanted: Sequence[Rule], ignore: Sequence[str]
) -> tuple[set[str], tuple[str, ...]]:
    """The names of tensors to skip, and notes about them for the user."""
    # Patterns match the file's own names, and the names without their prefix.
    # Without a set, whose order, and so the order of an error's list, differs from run to run.
    known = dict.fromkeys((*fitted.names, *fitted.names.values()))
    ignored = trees.select(known, ignore, what="ignore")
    ignored |= {fitted.names[key] for key in ignored if key in fitted.names}
    unused = {rule.name for rule in fitted.rules}.difference(rule.name for rule in wanted)
    if any(f"params/{HEAD}/kernel" in rule.paths for rule in wanted):
        return ignored | unused, ()
    # A new head replaces the file's own, whatever its name.
    ruled = {rule.name for rule in fitted.rules}
    heads = [name for name in fitted.names.values() if misfit.HEADS.match(name) and name not in ruled | ignored]
    notes = (f"skipped the file's own head: {several(heads)}",) if heads else ()
    return ignored.union(unused, heads), notes


def _classes_of(fitted: fitting.Fit, contents: Contents) -> int:
    """The number of logits of the head in a file; 1 if there is no head, which `mismatches` then reports."""
    bias = next(rule.name for rule in fitted.rules if f"params/{HEAD}/bias" in rule.paths)
    sizes = [contents.tensors[key].size for key, name in fitted.names.items() if name == bias]
    return max(*sizes, 1, 1)


def _widen(rules: Sequence[Rule], tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Widens float16 and bfloat16 tensors to float32, which loses nothing; also returns notes for the user."""
    float32 = {rule.name for rule in rules if rule.dtype == np.float32}
    narrow = {key: t.dtype for key, t in tensors.items() if key in float32 and t.dtype in (np.float16, jnp.bfloat16)}
    if not narrow:
        return dict(tensors), ()
    dtypes = " and ".join(sorted({dtype.name for dtype in narrow.values()}))
    note = f"widened {len(narrow)} tensors from {dtypes} to float32"
    return {key: t.astype(np.float32) if key in narrow else t for key, t in tensors.items()}, (note,)


def resize_positions(embedding: np.ndarray, shape: Shape, tokens: int) -> np.ndarray:
    """Resizes the position embeddings of a square grid to another one; those of learned tokens are kept.

    Args:
      embedding: float32 `[1, tokens + n, c]`.
      shape: the wanted shape `[1, tokens + m, c]`.
      tokens: the number of learned tokens before those of the grid.

    Returns:
      The resized embeddings; or `embedding` itself if its shape is right already, or if it cannot be resized
      (`mismatches` then reports what is wrong).
    """
    if embedding.shape == shape or embedding.ndim != 3 or embedding.dtype != np.float32:
        return embedding
    old, new = (round(max(n - tokens, 0) ** 0.5) for n in (embedding.shape[1], shape[1]))
    if embedding.shape != (1, tokens + old**2, shape[2]) or shape[1] != tokens + new**2 or not old:
        return embedding
    grid = jnp.asarray(embedding[0, tokens:]).reshape(old, old, -1)
    resized = jax.image.resize(grid, (new, new, grid.shape[-1]), "cubic", antialias=True)
    return np.concatenate([embedding[:, :tokens], np.asarray(resized).reshape(1, new**2, -1)], axis=1)


@functools.cache
def _leaves(name: str) -> frozenset[str]:
    """The paths of a network's variables; no option changes them."""
    return frozenset(shapes_by_path(create(name), image_size=224))


def check_layout(name: str, **options: Any) -> None:
    """Checks that a network's weights can be read from files and written to them.

    Args:
      name: as for `create`.
      **options: as for `create`.

    Raises:
      UserError: the network has no weight layout, so its tensors have no names.
    """
    if type(create(name, **options)) not in layouts.LAYOUTS:
        raise UserError(
            f"{name} has no weight layout, so its weights cannot be read or written; add one to models.layouts.LAYOUTS"
        )


def export(name: str, variables: Mapping[str, Any], *, layout: Layout | None = None) -> dict[str, np.ndarray]:
    """Variables as a state dict in torchvision's layout (ResNet, VGG), timm's, Flax's (one's own) or a given one.

    Variables that `load_pretrained` read from a file of that layout are exported bit for bit as they were. If the
    file lacked the `num_batches_tracked` of batch normalization, zeros are exported for them.

    Args:
      name: the network's name, as for `create`.
      variables: variables of that network, with any number of classes, width and image size.
      layout: another layout, such as `layouts.TIMM[VGG]`.

    Returns:
      Fresh NumPy arrays by name, float32 (counts: int64), for `save_safetensors`.

    Raises:
      UserError: these are not the variables of that network, or it has no weight layout. Neither is checked of networks
        of one's own, whose variables keep their names.
    """
    if is_own(name):
        # Its code is not run: its layout has the names of its variables, whatever its options.
        return {path: np.array(leaf) for path, leaf in trees.flatten(variables).items()}
    if layout is None:
        check_layout(name)
    model = create(name)
    leaves = {path: np.asarray(leaf) for path, leaf in trees.flatten(variables).items()}
    expected = _leaves(name)
    if set(leaves) != expected:
        missing, unknown = sorted(expected - set(leaves)), sorted(set(leaves) - expected)
        raise UserError(
            f"not the variables of {name}: missing [{several(missing)}], unknown [{several(unknown)}]",
            details=[*(f"{path} is missing" for path in missing), *(f"{path} is unknown" for path in unknown)],
        )
    layout = layout or layouts.LAYOUTS[type(model)][0]
    rules = layout({path: leaf.shape for path, leaf in leaves.items()})
    return {rule.name: rule.to_file(leaves) for rule in rules}
