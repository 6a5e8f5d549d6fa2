"""What disks refuse is one line that names the file."""

import shutil
from types import SimpleNamespace

import pytest

from vpns_jax import storage
from vpns_jax.errors import UserError
from vpns_jax.files import check_free


def test_a_name_that_no_disk_takes_is_one_line(tmp_path):
    with pytest.raises(UserError, match="x cannot be written or read: File name too long"):
        check_free(tmp_path / ("x" * 300))


def test_free_space_is_that_of_the_folders_own_disk(tmp_path, monkeypatch):
    """A folder may be where another disk is mounted."""
    mounted = tmp_path / "mounted"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 if path == mounted else 2))
    assert storage.free_bytes(mounted) == 1
    assert storage.free_bytes(tmp_path / "other") == 2
