"""One experiment, told once: load the data and the pretrained network, prune, retrain, evaluate, report.

Every method, density and seed of the configuration is a cell. A finished cell is never run again, an unfinished one
resumes from its newest checkpoint.
"""

import contextlib
import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vpns_jax import data, models, trees
from vpns_jax.data import Sources
from vpns_jax.deploy import subnetworks
from vpns_jax.errors import UserError
from vpns_jax.experiment import budget, inputs, pretraining, pruning, report
from vpns_jax.experiment.cell import CellRun, Setup
from vpns_jax.experiment.config import Config
from vpns_jax.experiment.inputs import Input
from vpns_jax.experiment.plan import Cell, cells, check_names, grid
from vpns_jax.experiment.workdir import Workdir, check_folder, locked
from vpns_jax.files import digest_arrays
from vpns_jax.parallel import processes, sharding
from vpns_jax.prompting import label_mapping
from vpns_jax.pruners import given_mask, method
from vpns_jax.training.batches import Resident, Split, Streamed
from vpns_jax.training.recorder import Progress, Recorder

PyTree = Any


def run(config: Config, workdir: Path, command: str) -> dict[str, Any] | None:
    """Runs, or resumes, an experiment; afterwards `workdir` holds what `Workdir` lists.

    Args:
      config: a checked configuration.
      workdir: a new folder, or that of an earlier run of the same configuration.
      command: how to run this again, for the report.

    Returns:
      The summary; None in all processes but the first, if there are several.

    Raises:
      UserError: something about the configuration, the data or the folder that the caller can mend.
    """
    mesh = _plan(config)
    # All that can be wrong first: a run that cannot start leaves no folder behind.
    check_folder(workdir, config)
    opened, found = _open(config, mesh), inputs.of(config)
    check_folder(workdir, config, found)
    processes.wait("checked")
    with locked(workdir):
        folder = Workdir(workdir, config, found)
        processes.wait("folder made")
        return _run(config, opened, folder, mesh, command)


def _run(config: Config, opened: "_Opened", folder: Workdir, mesh: Mesh, command: str) -> dict[str, Any] | None:
    """The cells that are missing, one after the other, then the report; as `run`."""
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
    if processes.first():
        results = [folder.read_cell(cell.name) for cell in grid(*folder.axes)]
        summary = report.report(config, folder, [r for r in results if r is not None], setup.about(command))
    processes.wait("reported")
    return summary


def check(config: Config) -> None:
    """Raises the `UserError` that `run` would begin with: about network, data, weights, or how they fit together."""
    _open(config, _plan(config))


def _plan(config: Config) -> Mesh:
    """The mesh that a run takes, once the config says all of it: names, values, epochs."""
    if config.tuning.grids:
        raise UserError("config.tuning.grids leave values open, and experiments.sweep chooses them; here set it to ()")
    check_names(config)
    for cell in cells(config):
        budget.epochs(config, cell.method, cell.density)
    return sharding.make_mesh(config.data.batch_size, data=config.mesh.data, fsdp=config.mesh.fsdp)


@dataclasses.dataclass(frozen=True)
class _Opened:
    """What a run starts from: the downstream data, the source network or the data to train it on, a mask if given."""

    target: Sources
    source: dict[str, PyTree] | None
    source_accuracy: float | None
    pretrain_data: Sources | None
    mask: PyTree | None
    normalization: models.Normalization
    # What was said in reading the weights.
    notes: tuple[str, ...]


def _open(config: Config, mesh: Mesh) -> _Opened:
    """Opens data and weights, and checks that they fit together."""
    _check_kernels(config)
    opened = functools.partial(
        data.open_sources, data_dir=config.data.directory or None, options=config.data.decode_options()
    )
    target = opened(config.data.name, val_fraction=config.data.val_fraction)
    _check_batch(config.data.name, config.data.batch_size, len(target.train))
    source, accuracy, pretrain_data, classes, loaded = None, None, None, 0, None
    if config.model.weights != "pretrain":
        loaded = _load_pretrained(config, len(target.classes))
        source = loaded.variables
    elif pretraining.cached(config):
        source, accuracy = pretraining.load(pretraining.cache_path(config))
    else:
        pretrain_data = opened(config.pretrain.data)
        _check_batch(config.pretrain.data, config.pretrain.batch_size, len(pretrain_data.train))
        sharding.check_batch("config.pretrain.batch_size", config.pretrain.batch_size, mesh)
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
    return _Opened(target, source, accuracy, pretrain_data, mask, normalization, notes)


def _load_pretrained(config: Config, classes: int) -> models.Pretrained:
    """The network of a file, with the file's head; where a new one takes its place the file need not have any."""
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
    """The mask that the config names, which must fit the network with so many source classes."""
    name, size = config.model.name, config.prompt.canvas_size
    found = subnetworks.load(Path(config.transfer.mask), name, image_size=size, **config.model.options)
    model = models.create(name, num_classes=classes, **config.model.options)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    found_here = pruning.prunable(config, variables["params"])
    for density in config.densities:
        given_mask.check(found.mask, found_here, density, name=config.transfer.mask)
    return found.mask


def _prepare(config: Config, opened: _Opened, folder: Workdir, progress: Progress) -> Setup:
    """Data and source network, on the devices; the network is trained first if there is none yet."""
    source, accuracy = opened.source, opened.source_accuracy
    for sources in filter(None, (opened.pretrain_data, opened.target)):
        for line in (*(f"skipped {line}" for line in sources.skipped), *sources.notes):
            progress.say(line)
    if opened.pretrain_data is not None:
        source, accuracy = _pretrain(config, opened.pretrain_data, folder, progress)
    if source is not None and config.model.weights == "pretrain":
        folder.add_input(inputs.SOURCE, Input(config.model.name, digest_arrays(sorted(trees.flatten(source).items()))))
        if processes.first():
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
    """Trains the source network, which comes back to the host, and keeps it for later runs."""
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
    if processes.first():
        pretraining.save(pretraining.cache_path(config), variables, accuracy)
    progress.say(f"source: {config.model.name} pretrained on {config.pretrain.data}, test accuracy {accuracy:.1%}")
    return variables, accuracy


def _splits(config: Config, sources: Sources, *, image_size: int) -> tuple[Split, Split, Split]:
    """Train, validation and test: on the devices if they fit the budget, streamed from the host if not."""
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


def _check_kernels(config: Config) -> None:
    """Raises `UserError` if the network does not take the images, or what is to be pruned names nothing in it."""
    model = models.create(config.model.name, **config.model.options)
    canvas_size, image_size = config.prompt.canvas_size, config.data.image_size

    def shapes(size: int) -> PyTree:
        return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))

    models.check_export(config.model.name)
    pruning.check(config, shapes(canvas_size))
    small = config.protocol == "reference" and image_size != canvas_size
    if small and shapes(image_size)["params"] != shapes(canvas_size)["params"]:
        raise UserError(
            f"config.data.image_size is {image_size} on a canvas of {canvas_size}: protocol reference runs plain "
            f"images at their own size, which {config.model.name} cannot; use protocol paper, or equal sizes"
        )


def _check_batch(name: str, batch_size: int, images: int) -> None:
    if batch_size > images:
        raise UserError(f"batch_size is {batch_size}; the {images} training images of {name} allow at most that many")


def _run_cell(setup: Setup, cell: Cell) -> None:
    """One cell from start to end, or from where it was interrupted."""
    run = CellRun(setup, cell)
    with contextlib.closing(run.recorder):
        _finish_cell(setup, cell, run)


def _finish_cell(setup: Setup, cell: Cell, run: CellRun) -> None:
    """Prune, retrain, evaluate, and write what came of it."""
    trained = run.retrain(run.prune())
    if run.plan.method.posthoc:
        trained = run.fit_prompt(trained.best)
    result = run.result(trained)
    # The first process goes on alone, with all it needs.
    size = min(setup.config.data.batch_size, setup.test.size)
    best, examples, (images, _) = sharding.to_host(
        (trained.best, setup.test.examples(report.EXAMPLES), setup.test.examples(size))
    )
    if result is not None:
        with jax.set_mesh(sharding.local_mesh()):
            rows = run.recorder.rows()
            report.draw_cell(setup.folder, cell.name, run.network, best, examples, setup.classes, rows)
            result["latency"] = run.latency(best, images)
        about = {"cell": cell.name, "inputs": setup.folder.digests(cell.method)}
        subnetworks.save(setup.folder.subnetwork(cell.name), setup.config.model.name, best, about)
        setup.folder.write_cell(cell.name, result)
        setup.progress.say(report.one_line(result))
