"""What is imported only when it is needed, because every start waits for it."""

import subprocess
import sys

import pytest

# What these import in turn takes most of the seconds: pandas, protobuf, LLVM.
HEAVY = {
    "jax",
    "flax",
    "optax",
    "orbax",
    "matplotlib",
    "scipy",
    "tensorflow",
    "tensorboard",
    "sklearn",
    "torch",
    "onnx",
}
# A run needs JAX, Orbax for checkpoints, and matplotlib's figures, but none of these until it is known what it does.
RARE = {
    "scipy.stats",
    "pandas",
    "sklearn",
    "mlxtend",
    "matplotlib.pyplot",
    "tensorboard",
    "tensorflow",
    "torch",
    "onnx",
}


def imported(code, names):
    """Runs `code` in a process of its own; returns what it printed, and which of the modules it imported."""
    report = f"{code}\nimport sys; print([name for name in {sorted(names)} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    *printed, modules = done.stdout.splitlines()
    return printed, modules


def test_the_package_alone_imports_next_to_nothing():
    assert imported("import vpns_jax", HEAVY | {"numpy"}) == ([], "[]")


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("from vpns_jax import commands; commands.main(['--help'])", "shrink"),
        ("import main; main.main(['main.py', '--help'])", "--workdir"),
        ("from vpns_jax import commands; commands.main(['run', '--config=a.py', '-h'])", "--config.KEY"),
    ],
)
def test_help_comes_without_waiting(code, word):
    printed, modules = imported(code, HEAVY)
    assert modules == "[]"
    assert printed[0].startswith("usage: python ")
    assert any(word in line for line in printed)


@pytest.mark.slow
def test_a_run_starts_without_what_few_runs_need():
    """The bundled digits are read without scikit-learn, which they are a file of."""
    code = "import vpns_jax.experiment.run\nfrom vpns_jax import data\ndata.load('digits', image_size=8)"
    assert imported(code, RARE) == ([], "[]")
