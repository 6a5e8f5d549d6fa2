"""A run of several processes: how they find each other, and what only the first of them does.

All of them run the same program on the same devices together. The first one alone writes what is not a checkpoint.
"""

import os
from importlib import util
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vpns_jax.errors import UserError

# The number of processes a launcher started, by launcher. JAX finds out the rest. In a Slurm job Open MPI's processes
# have the numbers of its daemons from Slurm, so it is asked first.
_LAUNCHERS = {"Open MPI": "OMPI_COMM_WORLD_SIZE", "Slurm": "SLURM_STEP_NUM_TASKS"}
# Seconds that one which ends, in error, waits for the others, which wait for it; those that finish end together.
_PATIENCE = 30
_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
# By which JAX finds the first of Open MPI's processes. Since its release 5 there is no such thing.
_ORTE = "OMPI_MCA_orte_hnp_uri"


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the other processes, before any device is touched; a process that is alone is left as it is.

    Args:
      coordinator: HOST:PORT where process 0 can be reached; without, $JAX_COORDINATOR_ADDRESS.
      processes: how many there are; without, $JAX_NUM_PROCESSES. 1 stands for a process that is alone, come what may.
      process: the number of this one; without, $JAX_PROCESS_ID.

    What is not given comes from Slurm (`srun`), Open MPI or Cloud TPU, where one of them started more than one process.
    Open MPI 5 has to be given the coordinator, or else asked through mpi4py.

    Raises:
      UserError: some of the three are missing or out of range, or the others cannot be joined.
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
        told = _told_by_open_mpi(coordinator, processes, process)
    else:
        told = {"num_processes": processes, "process_id": process}
    # JAX would take SIGTERM for a notice that is given ahead, and every process would run on until it is killed.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, shutdown_timeout_seconds=_PATIENCE, **told)
    except (ImportError, RuntimeError, ValueError) as error:
        where = f"process {process} of {processes} at {coordinator}" if launcher is None else f"as {launcher} has it"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"the other processes cannot be joined, {where}: {reason}") from error


def _check(given: dict[str, str | int | None], launcher: str | None) -> None:
    """Raises `UserError` for an incomplete or impossible answer to who is who."""
    missing = [name for name, value in given.items() if value is None]
    if missing and launcher is None:
        raise UserError(
            f"{' and '.join(missing)} missing; several processes take --coordinator=HOST:PORT, "
            "--processes=N and --process=0 ... N-1"
        )
    coordinator, processes, process = given.values()
    if coordinator is not None and not str(coordinator).rpartition(":")[2].isdigit():
        raise UserError(f"--coordinator is {coordinator}; it must be HOST:PORT, of process 0")
    if isinstance(processes, int) and processes < 1:
        raise UserError(f"--processes is {processes}; it must be at least 1")
    if isinstance(process, int) and isinstance(processes, int) and not 0 <= process < processes:
        raise UserError(f"--process is {process}; it must lie in 0 ... {processes - 1}")


def _told_by_open_mpi(coordinator: str | None, processes: int | None, process: int | None) -> dict[str, Any]:
    """What to tell JAX, beside the coordinator, where it does not find out by itself what Open MPI has started."""
    if coordinator is not None:
        size, rank, local = (_number(f"OMPI_COMM_WORLD_{name}") for name in ("SIZE", "RANK", "LOCAL_RANK"))
        return {
            "num_processes": size if processes is None else processes,
            "process_id": rank if process is None else process,
            # As JAX does for launchers that it knows: the GPU of the process's number on its machine.
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
    """Who started more processes than this one, if anyone did."""
    for name, variable in _LAUNCHERS.items():
        if (_number(variable) or 1) > 1:
            return name
    return "Cloud TPU" if _on_tpu() else None


def _on_tpu() -> bool:
    """Whether this machine has TPUs that may be a part of a slice: then only JAX can say, and costs little to ask."""
    if os.environ.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu" or util.find_spec("libtpu") is None:
        return False
    hosts = next((os.environ[name] for name in _HOSTS if name in os.environ), None)
    if hosts is not None:
        return "," in hosts
    found = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev").glob("vfio/[0-9]*")]
    return bool(found) and "TPU_SKIP_MDS_QUERY" not in os.environ


def first() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Waits until every process is here, so that what the first one wrote before is there for all."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def all_say(found: bool, otherwise: str) -> bool:
    """`found`, about which all processes must agree; raises `UserError` with `otherwise` in all of them if not."""
    if jax.process_count() > 1:
        everyone = multihost_utils.process_allgather(np.asarray(found))
        if everyone.any() != everyone.all():
            raise UserError(otherwise)
    return found
