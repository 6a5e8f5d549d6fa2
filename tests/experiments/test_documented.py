"""The commands that the documents give for studies pass the check with which a study begins."""

import re
import shlex
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import ablation
from tests.cli.program import ROOT
from vpns_jax import cli
from vpns_jax.experiment import run

# ml_collections loads config files in a way that is deprecated in Python.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
TEXTS = ("docs/experiments.md", "experiments/ablation.py", "experiments/transfer.py")


def commands():
    """Lists the arguments of all documented studies that name a config."""
    for path in TEXTS:
        text = (ROOT / path).read_text().replace("\\\n", " ")
        for module, rest in re.findall(r"python -m experiments\.(ablation|transfer) (.*?)(?=`|\n)", text):
            if "--config=configs/" in rest:
                yield module, shlex.split(rest)


@pytest.mark.parametrize(("module", "arguments"), list(commands()), ids=str)
def test_a_documented_study_can_start(module, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    # Data and weights are another matter: some have to be prepared first.
    monkeypatch.setattr(run, "open_inputs", lambda config, mesh: None)
    argv = [module, *(argument for argument in arguments if argument.startswith(("--config", "--study")))]
    # ml_collections always looks for overrides in sys.argv.
    monkeypatch.setattr(sys, "argv", argv)
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        config, _ = cli.parse(argv)
        study = flags.FLAGS.study
    configs = ablation.variants(study, config) if module == "ablation" else {"target": config}
    for made in configs.values():
        run.check(made)


def test_there_are_such_commands():
    assert {module for module, _ in commands()} == {"ablation", "transfer"}
    assert len(list(commands())) == 6
