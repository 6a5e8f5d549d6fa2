"""Every test session is strict: no silent rank promotion, warnings are errors (see pyproject.toml)."""

import importlib.metadata
import os

os.environ.setdefault("MPLBACKEND", "Agg")
# Before jax is imported. What is compiled here runs once or twice, so compiling is what takes the time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    # XLA ends the process over a flag that it does not know, and this one is on its way out.
    + " --xla_cpu_use_fusion_emitters=false" * importlib.metadata.version("jaxlib").startswith("0.10."),
)

import jax
import pytest

# Simulated devices, so that sharding is tested on a laptop too.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Files go to the workers whole: one that takes minutes must not be the last to start.
SLOWEST_FIRST = ("test_resume.py", "test_golden_run.py", "test_configs.py")


def pytest_configure(config):
    # What one worker compiled, or an earlier session, others need not; `pytest --cache-clear` empties it.
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figures that are saved, one after the other: their axes tell what they show."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig

    def keep(figure, *args, **kwargs):
        figures.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures
