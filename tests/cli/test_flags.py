"""What the program reads from its flags, and how it ends."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import ROOT, parsed
from vpns_jax import cli, output

# ml_collections loads config files in a way that is deprecated in Python.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def test_lists_with_commas(monkeypatch):
    config, _ = parsed(monkeypatch, "--config.methods=vpns,hydra+posthoc", "--config.densities=0.2,0.1")
    assert config.methods == ("vpns", "hydra+posthoc")
    assert config.densities == (0.2, 0.1)


def test_a_key_by_its_former_name(monkeypatch):
    config, _ = parsed(monkeypatch, "--config.prompt.parametrisation=tanh", "--config.prune.epochs=3")
    assert (config.prompt.parametrization, config.prune.epochs) == ("tanh", 3)


def test_a_tilde_in_the_workdir_is_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert parsed(monkeypatch, "--workdir=~/runs/x")[1] == Path("/home/someone/runs/x")


@pytest.mark.slow
def test_the_program_itself_exits_with_2():
    done = subprocess.run(
        [sys.executable, "main.py", "--config=configs/quickstart.py", "--config.densities=(2.0,)"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr == "error: config.densities holds 2.0; a density must lie in (0, 1], the share kept\n"
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["-u", "main.py", "--help"],
        ["main.py", "--help"],
        ["-m", "vpns_jax", "--help"],
        # By argparse, which ends the program itself.
        ["-m", "vpns_jax", "data", "--help"],
        ["-m", "vpns_jax.data", "list"],
    ],
)
def test_a_command_ends_quietly_if_nobody_reads_what_it_prints(words):
    """Where Python writes at once, and where it writes at the end."""
    read, write = os.pipe()
    os.close(read)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    ended = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_broken_pipe_where_the_system_cannot_be_asked(monkeypatch):
    def breaks():
        raise BrokenPipeError("of a reader")

    monkeypatch.delattr(select, "poll")
    with pytest.raises(BrokenPipeError, match="of a reader"):
        output.until_closed(breaks)


def test_another_broken_pipe_is_an_error_like_any_other():
    def run():
        raise BrokenPipeError("of a process")

    with pytest.raises(BrokenPipeError, match="of a process"):
        cli.end(run)
