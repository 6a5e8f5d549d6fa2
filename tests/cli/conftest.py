"""The program, run in this process."""

import sys

import pytest
from absl import flags
from absl.testing import flagsaver

import main
from tests.cli.program import BASE, ROOT


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Runs the program in this process; returns (exit code, stderr)."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments, workdir=tmp_path / "run", base=BASE):
        argv = ["main.py", *base, *arguments, f"--workdir={workdir}"]
        # ml_collections always looks for overrides in sys.argv.
        monkeypatch.setattr(sys, "argv", argv)
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            code = main.main(argv)
        return code, capfd.readouterr().err

    return run
