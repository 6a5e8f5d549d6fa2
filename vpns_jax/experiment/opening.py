"""Opens what a run starts from: data, weights and a mask. All are checked before a folder is made."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from vpns_jax import data, models
from vpns_jax.data import Sources
from vpns_jax.data.plan import check_batch
from vpns_jax.deploy import subnetworks
from vpns_jax.errors import UserError
from vpns_jax.experiment import pretraining, pruning
from vpns_jax.experiment.config import Config
from vpns_jax.models import initializing
from vpns_jax.parallel import sharding
from vpns_jax.prompting import label_mapping
from vpns_jax.pruners import method
from vpns_jax.pruners.methods import given_mask

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Opened:
    """What a run starts from.

    Attributes:
      target: the downstream data.
      source: variables of the source network; None if it has to be trained first.
      source_accuracy: its test accuracy on its own data; None if that is not known.
      pretrain_data: the data to train the source network on; None if there is a source network.
      mask: the mask of method "transfer"; None if no method needs one.
      normalization: the mean and deviation by which images are normalized.
      notes: remarks from reading the weights, for the user.
    """

    target: Sources
    source: dict[str, PyTree] | None
    source_accuracy: float | None
    pretrain_data: Sources | None
    mask: PyTree | None
    normalization: models.Normalization
    notes: tuple[str, ...]


def open_inputs(config: Config, mesh: Mesh) -> Opened:
    """Opens data, weights and mask, and checks that they fit together.

    Args:
      config: a checked configuration.
      mesh: the devices of the run.

    Returns:
      Everything that the run starts from.

    Raises:
      UserError: something is missing, cannot be read, or does not fit the rest.
    """
    _check_kernels(config)
    opened = functools.partial(
        data.open_sources, data_dir=config.data.directory or None, options=config.data.decode_options()
    )
    target = opened(config.data.name, val_fraction=config.data.val_fraction)
    check_batch(config.data.batch_size, len(target.train), key="config.data.batch_size", name=config.data.name)
    source, accuracy, pretrain_data, classes, loaded = None, None, None, 0, None
    if config.model.weights != "pretrain":
        loaded = _load_pretrained(config, len(target.classes))
        source = loaded.variables
    elif pretraining.cached(config):
        source, accuracy = pretraining.load(pretraining.cache_path(config))
    else:
        pretrain_data = opened(config.pretrain.data)
        key, batch_size = "config.pretrain.batch_size", config.pretrain.batch_size
        check_batch(batch_size, len(pretrain_data.train), key=key, name=config.pretrain.data)
        sharding.check_batch(key, batch_size, mesh)
        pretraining.check_cache(config)
        classes = len(pretrain_data.classes)
    if source is not None:
        classes = source["params"][models.HEAD]["bias"].shape[0]
    if config.mapping.kind != "head":
        label_mapping.check_sizes(classes, len(target.classes))
        if source is not None:
            models.check_head(source)
    normalization = pretraining.normalization(config, loaded)
    mask = _load_mask(config, classes) if any(method(name).given for name in config.methods) else None
    notes = loaded.notes if loaded else ()
    return Opened(target, source, accuracy, pretrain_data, mask, normalization, notes)


def _load_pretrained(config: Config, classes: int) -> models.Pretrained:
    """The network of a file, with the file's head. If a new head is learned, the file need not have one."""
    num_classes, dont_load = None, config.model.dont_load
    if config.mapping.kind == "head":
        num_classes, dont_load = classes, (models.HEAD, *dont_load)
    return models.read_pretrained(
        config.model.name,
        None if config.model.weights == "default" else config.model.weights,
        image_size=config.prompt.canvas_size,
        num_classes=num_classes,
        dont_load=dont_load,
        ignore=config.model.ignore,
        weights_key=config.model.weights_key,
        **config.model.options,
    )


def _load_mask(config: Config, classes: int) -> PyTree:
    """The mask that the config names; it must fit the network with this many source classes."""
    model_name, size = config.model.name, config.prompt.canvas_size
    mask_path = config.transferred_mask
    subnetwork = subnetworks.load(Path(mask_path), model_name, image_size=size, **config.model.options)
    model = models.create(model_name, num_classes=classes, **config.model.options)
    variables = initializing.shapes(model, image_size=size)
    weights = variables["params"]
    prunable, pattern = pruning.prunable(config, weights), pruning.pattern(config, model)
    for density in config.densities:
        given_mask.check(subnetwork.mask, prunable, density, name=mask_path, weights=weights, pattern=pattern)
    return subnetwork.mask


def _check_kernels(config: Config) -> None:
    """Checks that the network takes the images, and that the kernels to prune exist.

    Raises:
      UserError: they do not.
    """
    model = models.create(config.model.name, **config.model.options)
    canvas_size, image_size = config.prompt.canvas_size, config.data.image_size

    def shapes(size: int) -> PyTree:
        return initializing.shapes(model, image_size=size)

    models.check_layout(config.model.name, **config.model.options)
    models.check_call(model, image_size=canvas_size)
    pruning.check(config, model, shapes(canvas_size))
    small = config.protocol == "reference" and image_size != canvas_size
    if small and shapes(image_size)["params"] != shapes(canvas_size)["params"]:
        raise UserError(
            f"config.data.image_size is {image_size} on a canvas of {canvas_size}: protocol reference runs plain "
            f"images at their own size, which {config.model.name} cannot; use protocol paper, or equal sizes"
        )
