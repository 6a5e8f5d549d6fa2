"""What a process does before it computes: flags for the compiler, which XLA reads once."""

import os

import jax
import jax.numpy as jnp
import pytest

from tests import forks
from vpns_jax.parallel import startup

LESS = "--xla_backend_optimization_level=1"


@pytest.fixture
def flags(monkeypatch):
    """Sets the compiler's flags and JAX's platforms, and tells the flags after `compile_fast`."""

    def after(platforms: str, before: str = "") -> list[str]:
        monkeypatch.setenv("XLA_FLAGS", before)
        chosen = jax.config.jax_platforms
        jax.config.update("jax_platforms", platforms)
        try:
            startup.compile_fast()
        finally:
            jax.config.update("jax_platforms", chosen)
        return os.environ["XLA_FLAGS"].split()

    return after


def test_programs_for_cpus_are_optimized_less(flags):
    assert LESS in flags("cpu")


@pytest.mark.parametrize("platforms", ["cuda", "tpu,cpu"])
def test_an_accelerator_is_left_alone(flags, platforms):
    assert flags(platforms, "--xla_dump_to=x") == ["--xla_dump_to=x"]


def test_the_users_own_flags_stay(flags):
    assert LESS not in flags("cpu", "--xla_backend_optimization_level=3")


def test_a_process_that_runs_cell_after_cell_gets_the_flags_once(flags):
    once = flags("cpu", "--xla_dump_to=x")
    assert flags("cpu", " ".join(once)) == once


def test_without_a_chosen_platform_the_installed_plugins_decide(flags, monkeypatch):
    monkeypatch.setattr(startup.importlib.metadata, "entry_points", lambda group: ())
    for present in ((), ("jax_plugins",), ("libtpu",)):
        monkeypatch.setattr(startup.util, "find_spec", lambda name, present=present: name in present or None)
        assert (LESS in flags("")) == (not present)


def _computed(fast):
    """Computes in a process whose XLA has read no flags; it ends a process that gives it a flag it does not know."""
    startup.prepare(fast_compile=fast)
    return 0 if float(jax.jit(jnp.sum)(jnp.arange(4.0))) == 6 and (LESS in os.environ["XLA_FLAGS"]) == fast else 1


def test_this_xla_knows_the_flags(tmp_path):
    places = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "XLA_FLAGS": ""}
    started = {fast: forks.start(_computed, fast, log=tmp_path / "log", environment=places) for fast in (True, False)}
    for process in started.values():
        process.join()
    assert [process.exitcode for process in started.values()] == [0, 0], (tmp_path / "log").read_text()
