"""Processes that start with everything imported.

To import JAX and what a run needs takes four CPU seconds. A server imports them once, and each process is a fork of it.
The server computes nothing, so its forks find JAX as a new process does.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import jax

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["main", "tests.experiment.small", "vpns_jax.analysis.figures", "vpns_jax.commands.run"])


def start(function: Callable[..., Any], *arguments: Any, log: Path, environment: Mapping[str, str]) -> BaseProcess:
    """Starts a process on CPUs that ends with what `function` returns.

    Args:
      function: a function of a module.
      arguments: its arguments.
      log: the file that the process's output is appended to.
      environment: variables besides those of this process.

    Returns:
      The process.
    """
    variables = {**os.environ, **environment}
    process = CONTEXT.Process(target=_call, args=(function, arguments, log, variables), daemon=True)
    process.start()
    return process


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], log: Path, environment: dict[str, str]) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
    # The server has the variables of its own start.
    os.environ.clear()
    os.environ.update(environment)
    jax.config.update("jax_platforms", "cpu")
    sys.exit(function(*arguments))
