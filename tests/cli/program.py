"""A small job for the program's command line, what it reads from its flags, and what a refusal looks like."""

import sys
from pathlib import Path

from absl import flags
from absl.testing import flagsaver

from vpns_jax import cli

ROOT = Path(__file__).parent.parent.parent
# A small job, which each test makes wrong.
BASE = (
    "--config=configs/quickstart.py",
    "--config.data.name=digits",
    "--config.pretrain.data=digits",
    "--config.mapping.kind=head",
)


def assert_refused(outcome, *words):
    code, err = outcome
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert len(err) <= len("error: \n") + 400
    for word in words:
        assert word in err


def parsed(monkeypatch, *arguments):
    argv = ["main.py", *BASE, *arguments]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.chdir(ROOT)
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        return cli.parse(argv)
