"""Several processes run one experiment; killed, they resume together bit for bit, or one alone resumes."""

import os
import shutil
import signal
import socket
import sys
import time

import jax
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

import main
from tests import forks
from tests.experiment import small
from tests.pruners import cells
from tests.test_resume import PATIENCE, outcome, rows
from tests.training import tiny
from vpns_jax import data
from vpns_jax.errors import UserError
from vpns_jax.experiment import cell, config, pretraining
from vpns_jax.experiment import run as experiment
from vpns_jax.models import formats, layouts, registry
from vpns_jax.parallel import processes, sharding
from vpns_jax.training.recorder import Recorder

CELL = "hydra-s50-seed7"
CONFIG = "from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({tree})\n"


class Killed(Recorder):
    """Kills its process after it has logged an epoch, and before the epoch's checkpoint."""

    def epoch(self, row):
        super().epoch(row)
        if (row["stage"], row["epoch"]) == ("retrain", 2):
            # The first process has what it wrote to show for it.
            time.sleep(60 * jax.process_index())
            os.kill(os.getpid(), signal.SIGKILL)


def program(kill, folders, config, flags):
    """Runs main.py for several folders, with the tiny network. If it is to be killed, that happens in the last one."""
    registry.ENTRIES["tiny"] = cells.ENTRY
    layouts.LAYOUTS[tiny.Tiny] = (layouts.resnet_torchvision,)
    sharding.LARGE = 8
    FigureCanvasAgg.print_png = small.save_blank
    run_one = experiment.run

    def run_all(parsed, _, line):
        for folder in folders:
            if kill and folder == folders[-1]:
                cell.Recorder = Killed
            run_one(parsed, folder, line)

    experiment.run = run_all
    # The library for configs looks here for the keys that are changed.
    sys.argv = ["main.py", f"--config={config}", *flags]
    return main.main(sys.argv)


def prepare(tmp_path, monkeypatch):
    """Writes images and a config, and puts the source network into the cache, because training it takes longer."""
    for split, seed in (("train", 0), ("val", 1), ("test", 2)):
        drawn = tiny.split(seed=seed)
        for number, (image, label) in enumerate(zip(drawn.images, drawn.labels, strict=True)):
            path = tmp_path / "images" / split / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(image)).save(path)
    changes = {"methods": ("hydra",), "densities": (0.5,), "retrain__epochs": 2, "mapping__kind": "random"}
    tree = cells.tree(data__name=f"folder:{tmp_path / 'images'}", mesh__fsdp=2, **changes)
    (tmp_path / "config.py").write_text(CONFIG.format(tree=tree))
    monkeypatch.setitem(registry.ENTRIES, "tiny", cells.ENTRY)
    monkeypatch.setenv("VPNS_JAX_CACHE", str(tmp_path / "cache"))
    pretraining.save(pretraining.cache_path(config.parse(tree)), jax.device_get(tiny.variables()), 0.5)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def by_flags(port, number):
    """Makes the arguments and environment of one of two processes, with explicit addresses."""
    return [f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--process={number}"], {}


def by_slurm(port, number):
    """Makes the variables that JAX reads of one of two tasks of `srun`."""
    job = {"JOB_ID": "1", "STEP_NODELIST": "127.0.0.1", "STEP_NUM_TASKS": "2", "NTASKS": "2"}
    job |= {"PROCID": str(number), "LOCALID": str(number)}
    return [], {f"SLURM_{name}": value for name, value in job.items()} | {"JAX_COORDINATOR_PORT": str(port)}


def by_open_mpi_4(port, number):
    """Makes the variables of one of two processes of `mpirun` that identify it."""
    return [], mpi(number) | {"JAX_COORDINATOR_PORT": str(port), "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:1"}


def by_open_mpi_5(port, number):
    """The same for release 5 inside a Slurm job, where Slurm's numbers belong to a daemon."""
    return [f"--coordinator=127.0.0.1:{port}"], by_slurm(port, 7)[1] | mpi(number)


def mpi(number):
    environment = {"SIZE": "2", "RANK": str(number), "LOCAL_RANK": str(number)}
    return {f"OMPI_COMM_WORLD_{name}": value for name, value in environment.items()}


def alone(port, number):
    return ["--config.mesh.fsdp=1"], {}


def start(launch, function, *arguments, logs):
    """Starts processes with one device each, which call `function` with the arguments and their flags."""
    port, started = free_port(), []
    for number, log in enumerate(logs):
        flags, environment = launch(port, number)
        started.append(forks.start(function, *arguments, flags, log=log, environment=environment))
    return started


def end(started):
    for process in started:
        process.kill()
        process.join()


def run(tmp_path, count, launch, *names, kill=False):
    """Runs the folders one after another on `count` processes."""
    logs = [tmp_path / f"{'-'.join(names)}-{number}.log" for number in range(count)]
    folders = [tmp_path / name for name in names]
    started = start(launch, program, kill, folders, tmp_path / "config.py", logs=logs)
    try:
        # The first process decides when the processes are killed.
        for process in started[:1] if kill else started:
            process.join(PATIENCE)
            expected = -signal.SIGKILL if kill else 0
            assert process.exitcode == expected, "\n".join(log.read_text()[-2000:] for log in logs)
    finally:
        end(started)


def assert_close(workdir, expected):
    """Checks that two runs have the same rows and network, except for rounding, and the same mask."""
    written, wanted = rows(workdir, CELL), rows(expected, CELL)
    assert [(row["stage"], row["epoch"]) for row in written] == [("prune", 1), ("retrain", 1), ("retrain", 2)]
    for row, other in zip(written, wanted, strict=True):
        for name in ("loss", "density", "train_accuracy", "val_plain", "step"):
            np.testing.assert_allclose(row[name], other[name], rtol=1e-5, err_msg=name)
    network, task = (
        [formats.read(path / "subnetworks" / f"{CELL}.{end}safetensors") for path in (workdir, expected)]
        for end in ("", "task.")
    )
    for name in task[1]:
        np.testing.assert_array_equal(task[0][name], task[1][name], err_msg=name)
    for name in network[1]:
        np.testing.assert_allclose(network[0][name], network[1][name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_killed_and_resumed_by_two_or_by_one(tmp_path, monkeypatch):
    prepare(tmp_path, monkeypatch)
    run(tmp_path, 2, by_flags, "unbroken", "two", kill=True)
    shutil.copytree(tmp_path / "two", tmp_path / "two-one")
    run(tmp_path, 1, alone, "two-one", "one-two", kill=True)
    run(tmp_path, 2, by_slurm, "two", "one-two")
    assert outcome(tmp_path / "two", CELL) == outcome(tmp_path / "unbroken", CELL)
    # The file of a network says how its images were read: here, from a folder.
    decoding = outcome(tmp_path / "two", CELL)[0]["decoding"]
    assert data.Decoding.from_json(decoding) == data.Decoding(exif=True)
    assert_close(tmp_path / "two-one", tmp_path / "unbroken")
    assert_close(tmp_path / "one-two", tmp_path / "unbroken")
    # One file of events for each start: only the first process wrote events.
    assert len(list((tmp_path / "unbroken" / "tensorboard" / CELL).iterdir())) == 1


def tell(*_):
    """Prints which process this is, once the processes have joined."""
    gpus = jax.config.values["jax_cuda_visible_devices"]
    print("process", jax.process_index(), jax.process_count(), len(jax.devices()), gpus, flush=True)
    time.sleep(3600)


def by_main(flags):
    experiment.run = tell
    return main.main(["main.py", "--config=configs/quickstart.py", *flags])


def by_join(flags):
    """Joins as main.py does, without the checks of a config."""
    coordinators = [flag.removeprefix("--coordinator=") for flag in flags]
    processes.join(*(coordinators or [None]), None, None)
    tell()


def said(log):
    """Waits until a process has told which one it is."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines() if log.exists() else []:
            if line.startswith("process "):
                return line.split()[1:]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("launch", [by_flags, by_slurm, by_open_mpi_4, by_open_mpi_5])
def test_launchers_tell_who_is_who_and_sigterm_ends_all(launch, tmp_path):
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    started = start(launch, by_main if launch is by_flags else by_join, logs=logs)
    try:
        # A process of a launcher takes the GPU with its number on its machine.
        gpus = ["all", "all"] if launch is by_flags else ["0", "1"]
        for number, log in enumerate(logs):
            assert said(log) == [str(number), "2", "2", gpus[number]]
        for process in started:
            process.terminate()
            process.join(PATIENCE)
        assert [process.exitcode for process in started] == [-signal.SIGTERM] * 2
    finally:
        end(started)


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        ({}, ("host:1", 2, None), "--process missing; several processes take --coordinator=HOST:PORT"),
        ({"JAX_NUM_PROCESSES": "2"}, (None, None, None), "--coordinator and --process missing"),
        ({"JAX_NUM_PROCESSES": "two"}, (None, None, None), r"\$JAX_NUM_PROCESSES is 'two'; it must be a number"),
        ({}, ("host", 2, 0), "--coordinator is host; it must be HOST:PORT"),
        ({}, ("9876", 2, 0), "--coordinator is 9876; it must be HOST:PORT"),
        ({}, (":9876", 2, 0), "--coordinator is :9876; it must be HOST:PORT"),
        ({}, ("host:1", 2, 2), "--process is 2; it must lie in 0 ... 1"),
        ({}, ("host:1", 0, 0), "--processes is 0; it must be at least 1"),
        # Open MPI 5, without mpi4py.
        ({"OMPI_COMM_WORLD_SIZE": "2"}, (None, None, None), "does not say where its first process is: install mpi4py"),
        # Part of Slurm's environment is missing, so JAX cannot find the other processes.
        ({"SLURM_STEP_NUM_TASKS": "4"}, (None, None, None), "cannot be joined, as Slurm has it: "),
    ],
)
def test_processes_that_cannot_join_are_told_why(monkeypatch, environment, arguments, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # As if mpi4py were not installed.
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(UserError, match=message):
        processes.join(*arguments)


@pytest.mark.parametrize("environment", [{}, {"SLURM_STEP_NUM_TASKS": "1"}, {"OMPI_COMM_WORLD_SIZE": "1"}])
def test_a_process_that_is_alone_joins_nothing(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes.join(None, None, None)
    assert not jax.distributed.is_initialized()


@pytest.mark.parametrize("environment", [{}, {"SLURM_STEP_NUM_TASKS": "4"}, {"OMPI_COMM_WORLD_SIZE": "4"}])
def test_one_process_runs_alone_even_under_a_launcher_of_several(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes.join(None, 1, None)
    assert not jax.distributed.is_initialized()


def test_a_value_that_one_process_lacks_is_nowhere_true(monkeypatch):
    """Two processes: this one, and one whose values are the second row, in the order of their names."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", lambda mine: np.stack([mine, [True, False]]))
    assert processes.everywhere({"weights": True, "prompt": True}) == {"weights": False, "prompt": True}
