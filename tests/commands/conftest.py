"""What the tests of all commands share; each file names its command as `COMMAND`."""

import pytest

from vpns_jax import commands


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Runs each test in an empty folder, and leaves the compilation cache as it is."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "already chosen")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def call(request, capsys):
    """Runs the command: (exit code, stdout, stderr)."""

    def run(*arguments):
        code = commands.main([request.module.COMMAND, *arguments])
        return code, *capsys.readouterr()

    return run
