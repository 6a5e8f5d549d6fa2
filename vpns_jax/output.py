"""Ends a command without a word if whoever reads its output leaves, as `head` does."""

import os
import select
import sys
from collections.abc import Callable
from typing import TextIO

# What a shell reports of a program that ends so: 128 and the number of SIGPIPE.
CLOSED = 141


def until_closed(run: Callable[[], int]) -> int:
    """Runs a command as long as its output is read.

    Args:
      run: the command.

    Returns:
      Its exit code; `CLOSED` if standard output or standard error is a pipe that nobody reads any more.
    """
    try:
        try:
            code = run()
        except SystemExit:
            # argparse ends so, after --help.
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        closed = [stream for stream in (sys.stdout, sys.stderr) if _is_closed(stream)]
        # Another pipe may have broken, such as that to a process.
        if not closed:
            raise
        for stream in closed:
            # Python writes what is left when it ends, and would report the error again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return CLOSED


def _is_closed(stream: TextIO) -> bool:
    """Whether a stream is a pipe whose reader has left."""
    try:
        number = stream.fileno()
    # A notebook's, or that of a test.
    except (OSError, ValueError):
        return False
    # Windows cannot be asked so; there the error is raised as it is.
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))
