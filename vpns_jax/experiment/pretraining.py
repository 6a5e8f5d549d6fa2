"""Trains a source network, for when no pretrained one is available, with the same training loop as everything else."""

import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vpns_jax import data, files, models
from vpns_jax.errors import UserError
from vpns_jax.experiment.config import Config
from vpns_jax.models import formats
from vpns_jax.parallel import processes
from vpns_jax.prompting import create
from vpns_jax.storage import storage_errors
from vpns_jax.training.batches import Split, iterations_of
from vpns_jax.training.evaluation import evaluate
from vpns_jax.training.network import Network, Subnetwork
from vpns_jax.training.recorder import Recorder
from vpns_jax.training.runner import Runner
from vpns_jax.training.stage import Recipe, learn_weights

PyTree = Any

CELL = "source"
# The name in rows and checkpoints: like stage 2 it learns weights.
STAGE = "retrain"
# The most bytes of the names of model and data in a file's name, which has room for a digest and endings, too.
_MOST_SHOWN = 190


def cache_path(config: Config) -> Path:
    """Names the file in which the source network is kept between runs.

    Args:
      config: a checked configuration.

    Returns:
      The path; its name contains a digest of everything that decides the network.

    Raises:
      UserError: the source data cannot be read, or $VPNS_JAX_CACHE is no valid path.
    """
    recipe = {
        "model": [config.model.name, config.model.options],
        "pretrain": dataclasses.asdict(config.pretrain),
        "canvas_size": config.prompt.canvas_size,
        "data": data.identity(
            config.pretrain.data, config.data.decode_options(), data_dir=config.data.directory or None
        ),
    }
    if config.model.mean:
        recipe["normalization"] = [config.model.mean, config.model.std]
    code = models.own_code(config.model.name, **config.model.options)
    if code:
        recipe["code"] = [files.sha256(file) for file in code]
    name = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    # Of a network of one's own, the function's name.
    model, source = config.model.name.rpartition(":")[2], Path(config.pretrain.data).name
    shown = os.fsencode(f"{model}-{source}")
    if len(shown) > _MOST_SHOWN:
        shown = shown[:_MOST_SHOWN].decode(errors="ignore").encode()
    return files.cache_directory() / "sources" / f"{os.fsdecode(shown)}-{name}.npz"


def normalization(config: Config, source: models.Pretrained | None = None) -> models.Normalization:
    """Decides the normalization: as the config says, or else as the loaded weights were trained.

    Args:
      config: a checked configuration.
      source: the loaded network; None if the network is trained here.

    Returns:
      Mean and standard deviation of each channel, and where they come from.

    Raises:
      UserError: a file beside the weights cannot be read.
    """
    if config.model.mean:
        return models.Normalization(*models.check_normalization(config.model.mean, config.model.std), "as configured")
    if source is None:
        return models.find_normalization(config.model.name, **config.model.options)
    weights = None if config.model.weights == "default" else config.model.weights
    return models.find_normalization(config.model.name, weights, layout=source.layout, **config.model.options)


def cached(config: Config) -> bool:
    """Checks whether the source network is already in the cache.

    Args:
      config: a checked configuration.

    Returns:
      True if it is.

    Raises:
      UserError: see `cache_path`; or only some of several processes have it, which is raised in all of them.
    """
    path = cache_path(config)
    return processes.agree(
        path.exists(),
        f"cache folder {path.parent} is not the same for all processes; set VPNS_JAX_CACHE to one that is",
    )


def check_cache(config: Config) -> None:
    """Checks that the cache can be written, before a network is trained.

    Args:
      config: a checked configuration.

    Raises:
      UserError: it cannot, or see `cache_path`.
    """
    folder = cache_path(config).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cache folder {folder} cannot be written: {error.strerror}; set VPNS_JAX_CACHE") from error


def pretrain(
    config: Config,
    num_classes: int,
    *,
    train: Split,
    val: Split,
    test: Split,
    directory: Path,
    fingerprint: str,
    recorder: Recorder,
) -> tuple[dict[str, PyTree], float]:
    """Trains `config.model` from scratch on the source data set.

    Args:
      config: a checked configuration.
      num_classes: the number of classes of the source data set.
      train: its training split.
      val: its validation split.
      test: its test split.
      directory: the folder of checkpoints.
      fingerprint: identifies what the checkpoints depend on.
      recorder: takes the rows.

    Returns:
      The variables after the last epoch, and the accuracy on the test split.

    Raises:
      UserError: the loss or a parameter is not finite, or the disk cannot be written.
    """
    inputs = normalization(config)
    model = models.create(config.model.name, num_classes=num_classes, **config.model.options)
    size, epochs = config.prompt.canvas_size, config.pretrain.epochs
    blank = create("none", canvas_size=size)
    network = Network(model, prompt=blank, plain=blank, mean=inputs.mean, std=inputs.std)
    init_key, train_key = jax.random.split(jax.random.key(config.pretrain.seed))
    variables = models.init(model, init_key, image_size=size)
    untrained = Subnetwork(
        weights=variables["params"],
        mask={},
        batch_stats=variables.get("batch_stats", {}),
        prompt={},
        mapping=jnp.arange(num_classes),
    )
    optimizers = {"weights": config.pretrain.weights, "prompt": config.pretrain.weights}
    recipe = Recipe("paper", config.pretrain.batch_size, epochs, optimizers)
    stage, state = learn_weights(network, untrained, recipe, iterations_of(train, recipe.batch_size))
    runner = Runner(
        train=train,
        val=val,
        directory=directory,
        fingerprint=fingerprint,
        keys={STAGE: train_key},
        recorder=recorder,
        save_every=config.checkpoint_every_epochs,
        save_within=config.checkpoint_every_steps,
    )
    state = runner.run(STAGE, stage, state, epochs)
    seen = evaluate(network, stage.subnetwork(state), test, batch_size=recipe.batch_size)
    return (
        {"params": state.learned["weights"], "batch_stats": state.batch_stats},
        float(seen.plain["accuracy"]),
    )


def save(path: Path, variables: dict[str, PyTree], test_accuracy: float) -> None:
    """Writes a source network to the cache; another process sees the whole file or none.

    Args:
      path: the file, `.npz`.
      variables: nested dicts of NumPy arrays.
      test_accuracy: the network's accuracy on its own test split.

    Raises:
      UserError: the disk cannot be written.
    """
    arrays = traverse_util.flatten_dict(variables, sep="/")
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with files.whole(path) as file:
        np.savez(file, test_accuracy=np.float64(test_accuracy), **arrays)


def load(path: Path) -> tuple[dict[str, PyTree], float]:
    """Reads a file that `save` wrote.

    Args:
      path: the file; each of its members has a checksum.

    Returns:
      The variables, and the accuracy on the test split.

    Raises:
      UserError: the file is damaged.
    """
    try:
        arrays = formats.read(path)
        accuracy = float(arrays.pop("test_accuracy"))
    except (UserError, KeyError, TypeError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise UserError(f"cached source network {path} is damaged: {reason}; remove it to train it again") from error
    return traverse_util.unflatten_dict(arrays, sep="/"), accuracy
