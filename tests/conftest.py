"""Strict test sessions: rank promotion raises, and warnings are errors (see pyproject.toml)."""

import importlib.metadata
import logging
import math
import os

os.environ.setdefault("MPLBACKEND", "Agg")
# Set before jax is imported. Programs run only once or twice here, so compiling takes most of the time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    # XLA ends the process if it does not know a flag, and newer versions may not know this one.
    + " --xla_cpu_use_fusion_emitters=false" * importlib.metadata.version("jaxlib").startswith("0.10."),
)

import jax
import pytest

from tests import sorting
from vpns_jax.models.cpu import conv
from vpns_jax.parallel import startup

# Simulated devices, so that sharding can be tested on a laptop.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# A worker runs whole files, so a file that takes minutes must not be the last to start.
SLOWEST_FIRST = (
    "test_golden_run.py",
    "test_resume.py",
    "test_notebook.py",
    "test_processes.py",
    "test_methods.py",
    "test_damage.py",
    "test_golden.py",
    "test_inputs.py",
)


def pytest_configure(config):
    # Workers and sessions share compiled programs; `pytest --cache-clear` removes them.
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(autouse=True)
def _loggers():
    """Puts log levels back: a command that ran in this process silenced them, and a later test may read them."""
    loggers = [logging.getLogger(name) for name in startup.SILENCED]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def drawn(monkeypatch):
    """Collects the matplotlib figures that are saved, so that tests can look at their axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figures, save = [], FigureCanvasAgg.print_png

    def keep(canvas, *args, **kwargs):
        figures.append(canvas.figure)
        return save(canvas, *args, **kwargs)

    monkeypatch.setattr(FigureCanvasAgg, "print_png", keep)
    return figures


@pytest.fixture
def small_families(monkeypatch):
    """Registers small networks of every family, see `tests/deploy/families.py`."""
    from tests.deploy import families

    families.register(monkeypatch)


@pytest.fixture
def small_world(tmp_path, monkeypatch):
    """Registers the tiny network so that it can be run and exported, see `tests/experiment/small.py`."""
    from tests.experiment import small

    with small.world(tmp_path, monkeypatch):
        yield


@pytest.fixture
def searched_by_sorting(monkeypatch):
    """Selects by sorting, see `tests/sorting.py`."""
    sorting.replace_searches(monkeypatch)


@pytest.fixture(scope="module")
def without_winograd():
    """Computes every convolution that would take Winograd's algorithm as a matrix product over patches.

    Programs of wide networks compile in a third of the time. That the two agree, gradients too, is what
    tests/models/test_conv.py shows, and tests/models/test_golden.py has whole networks with both.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "WINOGRAD_CHANNELS", math.inf)
        yield
