"""One experiment, told once: load the data and the pretrained network, prune, retrain, evaluate, report.

Every method, density and seed of the configuration is a cell. A finished cell is never run again, an unfinished one
resumes from its newest checkpoint.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax import data, models, pretraining, reporting, sharding
from vpns_jax.cell import Cell, CellRun, Setup
from vpns_jax.config import Config
from vpns_jax.prompting import label_mapping
from vpns_jax.pruners import METHODS, Method
from vpns_jax.training.batches import Resident
from vpns_jax.training.checkpoints import Checkpoints
from vpns_jax.training.recorder import Progress, Recorder
from vpns_jax.workdir import Workdir

PyTree = Any


def cells(config: Config) -> Iterator[Cell]:
    """All cells of an experiment, seed by seed. A dense network has one density, 1."""
    for seed in config.seeds:
        for method in config.methods:
            densities = (1.0,) if method.startswith("dense") else config.densities
            yield from (Cell(method, density, seed) for density in densities)


def run(config: Config, workdir: Path, command: str) -> dict[str, Any]:
    """Runs, or resumes, an experiment; afterwards `workdir` holds what `Workdir` lists.

    Args:
      config: a checked configuration.
      workdir: a new folder, or that of an earlier run of the same configuration.
      command: how to run this again, for the report.

    Returns:
      The summary.

    Raises:
      UserError: something about the configuration, the data or the folder that the caller can mend.
    """
    folder = Workdir(workdir, config)
    mesh = sharding.make_mesh(config.data.batch_size)
    todo = [cell for cell in cells(config) if folder.read_cell(cell.name) is None]
    cached = config.model.weights != "pretrain" or pretraining.cache_path(config).exists()
    epochs = sum(_epochs(config, METHODS[cell.method]) for cell in todo)
    progress = Progress(epochs + (0 if cached else config.pretrain.epochs))
    with jax.set_mesh(mesh):
        setup = _prepare(config, folder, progress)
        for cell in todo:
            _run_cell(setup, cell)
    progress.close()
    results = [folder.read_cell(cell.name) for cell in cells(config)]
    return reporting.report(config, folder, [r for r in results if r is not None], setup.about(command))


def _prepare(config: Config, folder: Workdir, progress: Progress) -> Setup:
    """Data and source network, on the devices; whatever does not fit together ends here."""
    dataset = data.load(config.data.name, image_size=config.data.image_size, val_fraction=config.data.val_fraction)
    if config.model.weights == "pretrain":
        source, accuracy = _pretrained_here(config, folder, progress, dataset.num_classes)
    else:
        source, accuracy = (
            models.load_pretrained(
                config.model.name,
                config.model.weights,
                image_size=config.prompt.canvas_size,
                **config.model.options,
            ),
            None,
        )
    mesh = jax.sharding.get_mesh()
    train, val, test = (sharding.replicate(split, mesh) for split in _resident(dataset))
    source = sharding.replicate(source, mesh)
    setup = Setup(config, folder, progress, dataset, train, val, test, source, accuracy)
    if config.mapping.kind != "head":
        label_mapping.check_sizes(setup.source_classes, dataset.num_classes)
    return setup


def _pretrained_here(
    config: Config, folder: Workdir, progress: Progress, target_classes: int
) -> tuple[dict[str, PyTree], float]:
    path = pretraining.cache_path(config)
    if path.exists():
        return pretraining.load(path)
    dataset = data.load(config.pretrain.data, image_size=config.prompt.canvas_size, val_fraction=0.1)
    if config.mapping.kind != "head":
        label_mapping.check_sizes(dataset.num_classes, target_classes)
    recorder = Recorder(pretraining.CELL, folder.log, folder.tensorboard(pretraining.CELL), progress)
    train, val, test = _resident(dataset)
    directory = folder.checkpoints(pretraining.CELL, "retrain")
    with Checkpoints(directory, config.fingerprint()) as checkpoints:
        variables, accuracy = pretraining.pretrain(
            config, dataset, train=train, val=val, test=test, checkpoints=checkpoints, recorder=recorder
        )
    recorder.close()
    pretraining.save(path, variables, accuracy)
    progress.say(f"source: {config.model.name} pretrained on {config.pretrain.data}, test accuracy {accuracy:.1%}")
    return variables, accuracy


def _resident(dataset: data.Dataset) -> tuple[Resident, Resident, Resident]:
    """The splits as arrays for the device; only the training split carries what crops are taken from."""
    train = Resident(
        images=jnp.asarray(dataset.train.images),
        labels=jnp.asarray(dataset.train.labels),
        large=jnp.asarray(dataset.train.large),
        flip=dataset.flip,
    )
    val, test = (
        Resident(images=jnp.asarray(split.images), labels=jnp.asarray(split.labels))
        for split in (dataset.val, dataset.test)
    )
    return train, val, test


def _run_cell(setup: Setup, cell: Cell) -> None:
    """Prune, retrain, evaluate: one cell from start to end, or from where it was interrupted."""
    run = CellRun(setup, cell)
    pruned = METHODS[cell.method].prune(run.problem())
    state, fixed, best = run.retrain(pruned)
    result = run.result(state, fixed, best)
    reporting.draw_cell(
        setup.folder, cell.name, run.network, best, setup.test, setup.dataset.classes, run.recorder.rows()
    )
    run.recorder.close()
    setup.folder.write_cell(cell.name, result)
    setup.progress.say(reporting.one_line(result))


def _epochs(config: Config, method: Method) -> int:
    return config.retrain.epochs + (config.prune.epochs if method.trains else 0)
