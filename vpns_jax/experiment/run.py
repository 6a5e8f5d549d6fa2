"""One experiment from start to end: load data and the pretrained network, prune, retrain, evaluate, report.

Each combination of method, density and seed is a cell. A finished cell is never run again. An unfinished cell is
resumed from its newest checkpoint.
"""

import contextlib
import functools
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from vpns_jax import data, deploy, models, trees
from vpns_jax.data import Sources
from vpns_jax.deploy import Classifier
from vpns_jax.errors import UserError
from vpns_jax.experiment import budget, inputs, pretraining, report, timing
from vpns_jax.experiment.cell import CellRun, Setup
from vpns_jax.experiment.config import Config
from vpns_jax.experiment.folder_checks import check_folder
from vpns_jax.experiment.inputs import Input
from vpns_jax.experiment.lock import locked
from vpns_jax.experiment.opening import Opened, open_inputs
from vpns_jax.experiment.plan import Cell, cells, check_names, grid
from vpns_jax.experiment.workdir import Workdir
from vpns_jax.files import digest_arrays
from vpns_jax.parallel import processes, sharding
from vpns_jax.training.batches import Resident, Split, Streamed
from vpns_jax.training.recorder import Progress, Recorder

PyTree = Any


def run(config: Config, workdir: Path, command: str) -> dict[str, Any] | None:
    """Runs or resumes an experiment. `Workdir` lists what the folder holds afterwards.

    Args:
      config: a checked configuration.
      workdir: a new folder, or the folder of an earlier run of the same configuration.
      command: the command that runs this again, for the report.

    Returns:
      The summary. If there are several processes, None in all but the first.

    Raises:
      UserError: there is a mistake in the configuration, the data or the folder that the user can fix; the disk
        refuses; or a loss or a parameter is no longer finite.
    """
    mesh = _mesh(config)
    # All checks come first, so that a run that cannot start leaves no folder behind.
    check_folder(workdir, config)
    opened, current = open_inputs(config, mesh), inputs.of(config)
    check_folder(workdir, config, current)
    processes.barrier("checked")
    with locked(workdir):
        folder = Workdir(workdir, config, current)
        processes.barrier("folder made")
        return _run(config, opened, folder, mesh, command)


def _run(config: Config, opened: Opened, folder: Workdir, mesh: Mesh, command: str) -> dict[str, Any] | None:
    """Runs the missing cells one after another, then writes the report; returns the same as `run`."""
    todo = [cell for cell in cells(config) if folder.read_cell(cell.name) is None]
    epochs = sum(budget.epochs(config, cell.method, cell.density).total for cell in todo)
    progress = Progress(epochs + (0 if opened.source else config.pretrain.epochs))
    for name in folder.lost_rows(cell.name for cell in cells(config)):
        progress.say(f"warning: {folder.log.path} has lost rows of {name}, which is finished: its result stands")
    with jax.set_mesh(mesh):
        setup = _prepare(config, opened, folder, progress)
        for cell in todo:
            _run_cell(setup, cell)
    progress.close()
    summary = None
    if processes.is_primary():
        results = [folder.read_cell(cell.name) for cell in grid(*folder.axes)]
        summary = report.report(config, folder, [r for r in results if r is not None], setup.about(command))
    processes.barrier("reported")
    return summary


def check(config: Config) -> None:
    """Makes the checks with which `run` begins, on network, data and weights.

    Args:
      config: a checked configuration.

    Raises:
      UserError: `run` could not start.
    """
    open_inputs(config, _mesh(config))


def _mesh(config: Config) -> Mesh:
    """Checks that the config is complete (names, values, epochs), and makes the mesh of the run."""
    if config.tuning.grids:
        raise UserError(
            "config.tuning.grids has values to choose from, which only experiments.sweep can do; set it to ()"
        )
    check_names(config)
    for cell in cells(config):
        budget.epochs(config, cell.method, cell.density)
    batch_size, mesh = config.data.batch_size, config.mesh
    return sharding.make_mesh(batch_size, data=mesh.data, fsdp=mesh.fsdp, key="config.data.batch_size")


def _prepare(config: Config, opened: Opened, folder: Workdir, progress: Progress) -> Setup:
    """Puts data and source network on the devices. If there is no source network yet, trains it first."""
    source, accuracy = opened.source, opened.source_accuracy
    for sources in filter(None, (opened.pretrain_data, opened.target)):
        for line in (*(f"skipped {line}" for line in sources.skipped), *sources.notes):
            progress.say(line)
    if opened.pretrain_data is not None:
        source, accuracy = _pretrain(config, opened.pretrain_data, folder, progress)
    assert source is not None, "without data to pretrain on, the source network is there"
    if config.model.weights == "pretrain":
        folder.add_input(inputs.SOURCE, Input(config.model.name, digest_arrays(sorted(trees.flatten(source).items()))))
        if processes.is_primary():
            exported = folder.subnetwork(pretraining.CELL)
            exported.parent.mkdir(exist_ok=True)
            models.save_safetensors(exported, models.export(config.model.name, source))
    for line in opened.notes:
        progress.say(f"weights {config.model.weights}: {line}")
    progress.say(f"inputs normalized by {opened.normalization}")
    train, val, test = _splits(config, opened.target, image_size=config.data.image_size)
    source, mask = sharding.place((source, opened.mask), jax.sharding.get_mesh())
    return Setup(
        config=config,
        folder=folder,
        progress=progress,
        classes=opened.target.classes,
        train=train,
        val=val,
        test=test,
        source=source,
        source_accuracy=accuracy,
        normalization=opened.normalization,
        source_notes=opened.notes,
        mask=mask,
        decoding=opened.target.decoding,
    )


def _pretrain(config: Config, sources: Sources, folder: Workdir, progress: Progress) -> tuple[dict[str, PyTree], float]:
    """Trains the source network, returns it on the host, and keeps it for later runs."""
    train, val, test = _splits(config, sources, image_size=config.prompt.canvas_size)
    recorder = Recorder(pretraining.CELL, folder.log, folder.tensorboard(pretraining.CELL), progress)
    variables, accuracy = pretraining.pretrain(
        config,
        len(sources.classes),
        train=train,
        val=val,
        test=test,
        directory=folder.checkpoints(pretraining.CELL),
        fingerprint=folder.fingerprint("", pretraining.CELL),
        recorder=recorder,
    )
    recorder.close()
    variables = sharding.to_host(variables)
    if processes.is_primary():
        pretraining.save(pretraining.cache_path(config), variables, accuracy)
    progress.say(f"source: {config.model.name} pretrained on {config.pretrain.data}, test accuracy {accuracy:.1%}")
    return variables, accuracy


def _splits(config: Config, sources: Sources, *, image_size: int) -> tuple[Split, Split, Split]:
    """The train, validation and test splits: on the devices if they fit the budget, otherwise streamed."""
    if data.resident_bytes(sources, image_size=image_size) > config.data.budget_gib * 2**30:
        streamed = [
            Streamed(source, image_size, config.data.workers, sources.flip)
            for source in (sources.train, sources.val, sources.test)
        ]
        return streamed[0], streamed[1], streamed[2]
    dataset = data.materialize(sources, image_size=image_size)
    everywhere = functools.partial(sharding.replicate, mesh=jax.sharding.get_mesh())
    train = Resident(
        images=everywhere(dataset.train.images),
        labels=everywhere(dataset.train.labels),
        large=everywhere(dataset.train.large),
        flip=dataset.flip,
    )
    val, test = (
        Resident(images=everywhere(split.images), labels=everywhere(split.labels))
        for split in (dataset.val, dataset.test)
    )
    return train, val, test


def _run_cell(setup: Setup, cell: Cell) -> None:
    """Runs one cell from its start, or from where it was interrupted."""
    run = CellRun(setup, cell)
    with contextlib.closing(run.recorder):
        _finish_cell(setup, run)


def _finish_cell(setup: Setup, run: CellRun) -> None:
    """Prunes, retrains, evaluates and writes the results."""
    trained = run.retrain(run.prune())
    if run.plan.method.posthoc:
        trained = run.fit_prompt(trained.best)
    result = run.result(trained)
    # From here on the first process works alone, so it needs everything on its host.
    size = min(setup.config.data.batch_size, setup.test.size)
    best, examples, (images, _) = sharding.to_host(
        (trained.best, setup.test.examples(report.EXAMPLES), setup.test.examples(size))
    )
    if result is not None:
        with jax.set_mesh(sharding.local_mesh()):
            rows = run.recorder.rows()
            report.draw_cell(setup.folder, result, run.network, best, examples, setup.classes, rows)
            finished = Classifier(run.description(result), best)
            result["latency"] = None
            if run.plan.method.sparse:
                result["latency"] = timing.masked(run.network, best, images)
                shrunk = timing.without_dead_channels(finished, images) | result.get("shrunk", {})
                result |= {"shrunk": shrunk} if shrunk else {}
        name = run.plan.cell.name
        deploy.save(setup.folder.subnetwork(name), finished)
        setup.folder.write_cell(name, result)
        setup.progress.say(report.one_line(result))
