"""Runs of several processes: how the processes find each other, and how they wait for each other.

All processes run the same program together. Checkpoints are written by all; all other files by the first process only,
except what is remembered about data: the index of a folder, the labels and the checksums of a set that TFDS prepared.
Each process that misses these writes them, whole or not at all, with the same content.
"""

import os
from importlib import util
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vpns_jax.errors import UserError, first_line

# For each launcher, the variable that holds the number of processes it started. JAX finds out the rest. Open MPI comes
# first, because inside a Slurm job, Slurm's variables describe Open MPI's daemons and not its processes.
_LAUNCHERS = {"Open MPI": "OMPI_COMM_WORLD_SIZE", "Slurm": "SLURM_STEP_NUM_TASKS"}
# Seconds that a process that ends with an error waits for the others. Processes that succeed end together.
_PATIENCE = 30
_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
# The variable by which JAX finds the first process of Open MPI. Open MPI 5 no longer sets it.
_ORTE = "OMPI_MCA_orte_hnp_uri"


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Connects this process with the others, before any device is used. A single process does nothing.

    Values that are not given come from Slurm (`srun`), Open MPI or Cloud TPU, if one of them started several processes.
    Open MPI 5 needs the coordinator's address or mpi4py.

    Args:
      coordinator: HOST:PORT of process 0; None takes $JAX_COORDINATOR_ADDRESS.
      processes: the number of processes; None takes $JAX_NUM_PROCESSES. 1 always means a single process.
      process: the number of this process; None takes $JAX_PROCESS_ID.

    Raises:
      UserError: a value is missing or out of range, or the other processes cannot be reached.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    processes = _number("JAX_NUM_PROCESSES") if processes is None else processes
    process = _number("JAX_PROCESS_ID") if process is None else process
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    launcher = _launcher()
    if processes == 1 or (launcher is None and not any(value is not None for value in given.values())):
        return
    _check(given, launcher)
    if launcher == "Open MPI" and _ORTE not in os.environ:
        arguments = _open_mpi_arguments(coordinator, processes, process)
    else:
        arguments = {"num_processes": processes, "process_id": process}
    # JAX would treat SIGTERM as an early warning, and every process would go on until it is killed.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, shutdown_timeout_seconds=_PATIENCE, **arguments)
    except (ImportError, RuntimeError, ValueError) as error:
        where = f"process {process} of {processes} at {coordinator}" if launcher is None else f"as {launcher} has it"
        raise UserError(f"the other processes cannot be joined, {where}: {first_line(error)}") from error


def _check(given: dict[str, str | int | None], launcher: str | None) -> None:
    """Raises `UserError` if values are missing or impossible."""
    missing = [name for name, value in given.items() if value is None]
    if missing and launcher is None:
        raise UserError(
            f"{' and '.join(missing)} missing; several processes take --coordinator=HOST:PORT, "
            "--processes=N and --process=0 ... N-1"
        )
    coordinator, processes, process = given.values()
    host, _, port = str(coordinator).rpartition(":")
    if coordinator is not None and not (host and port.isdigit()):
        raise UserError(f"--coordinator is {coordinator}; it must be HOST:PORT, of process 0")
    if isinstance(processes, int) and processes < 1:
        raise UserError(f"--processes is {processes}; it must be at least 1")
    if isinstance(process, int) and isinstance(processes, int) and not 0 <= process < processes:
        raise UserError(f"--process is {process}; it must lie in 0 ... {processes - 1}")


def _open_mpi_arguments(coordinator: str | None, processes: int | None, process: int | None) -> dict[str, Any]:
    """JAX's arguments, beside the coordinator, for versions of Open MPI that JAX does not recognize."""
    if coordinator is not None:
        size, rank, local = (_number(f"OMPI_COMM_WORLD_{name}") for name in ("SIZE", "RANK", "LOCAL_RANK"))
        return {
            "num_processes": size if processes is None else processes,
            "process_id": rank if process is None else process,
            # As for launchers that JAX knows: each process uses the GPU of its number on its machine.
            "local_device_ids": None if "JAX_LOCAL_DEVICE_IDS" in os.environ else local,
        }
    if util.find_spec("mpi4py") is None:
        raise UserError(
            "Open MPI 5 does not say where its first process is: install mpi4py, or give --coordinator=HOST:PORT"
        )
    return {"num_processes": processes, "process_id": process, "cluster_detection_method": "mpi4py"}


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is not None and not text.isdigit():
        raise UserError(f"${name} is {text!r}; it must be a number")
    return None if text is None else int(text)


def _launcher() -> str | None:
    """The launcher that started several processes; None if there is only this one."""
    for name, variable in _LAUNCHERS.items():
        if (_number(variable) or 1) > 1:
            return name
    return "Cloud TPU" if _on_tpu() else None


def _on_tpu() -> bool:
    """Whether this machine's TPUs may be a part of a slice. Only JAX can tell for certain, which is then quick."""
    if os.environ.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu" or util.find_spec("libtpu") is None:
        return False
    hosts = next((os.environ[name] for name in _HOSTS if name in os.environ), None)
    if hosts is not None:
        return "," in hosts
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev").glob("vfio/[0-9]*")]
    return bool(chips) and "TPU_SKIP_MDS_QUERY" not in os.environ


def is_primary() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has called this. Then all see the files that the first one wrote before."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree(value: bool, otherwise: str) -> bool:
    """Checks that all processes have the same value.

    Args:
      value: this process's value.
      otherwise: the error's text.

    Returns:
      `value`.

    Raises:
      UserError: the values differ; all processes raise it.
    """
    if jax.process_count() > 1:
        everyone = multihost_utils.process_allgather(np.asarray(value))
        if everyone.any() != everyone.all():
            raise UserError(otherwise)
    return value


def everywhere(values: dict[str, bool]) -> dict[str, bool]:
    """Tells whether values are True in every process.

    Args:
      values: this process's values; all processes have the same names.

    Returns:
      By name, whether all have True.
    """
    if jax.process_count() == 1:
        return values
    everyone = multihost_utils.process_allgather(np.asarray([values[name] for name in sorted(values)]))
    return dict(zip(sorted(values), everyone.all(axis=0).tolist(), strict=True))
