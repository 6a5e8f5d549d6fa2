"""Weight files on the Hugging Face hub, downloaded and cached by its own library."""

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

from vpns_jax import files
from vpns_jax.errors import UserError, short, shorten
from vpns_jax.models import formats

SCHEME = "hf://"
DEFAULT_FILE = "model.safetensors"
# An answer that takes longer will not come. An error is better than a program that seems to hang.
TIMEOUT_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class _HubFile:
    """A file in a repository; revision None is its main branch."""

    repository: str
    revision: str | None
    file: str

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.repository}{revision}/{self.file}"


def resolve(source: str | os.PathLike[str]) -> Path:
    """The local file behind a source.

    Args:
      source: a local path, in which `~` is replaced; or a hub id `hf://OWNER/REPOSITORY[@REVISION][/FILE]`, by default
        with revision "main" and file "model.safetensors". `huggingface_hub` downloads the file once and keeps it in its
        cache. Its environment variables apply: HF_HOME (the cache), HF_ENDPOINT (a mirror), HF_TOKEN, HF_HUB_OFFLINE.

    Returns:
      The file's path.

    Raises:
      UserError: the hub id or the path is malformed, or the file cannot be downloaded; the error says what to do.
    """
    wanted = _parse(source)
    if wanted is None:
        return _local(source)
    path = _fetch(wanted)
    try:
        formats.check_no_page(path)
    except UserError as error:
        # The blob as well as the link to it; otherwise the next call would take it for the file.
        for kept in (path.resolve(), path):
            kept.unlink(missing_ok=True)
        raise UserError(
            f"{wanted}: the hub, or a proxy before it, sent a web page instead of weights; the page was removed from "
            "the cache. Check HF_ENDPOINT and the proxy, or log in to the network"
        ) from error
    return path


def beside(source: str | os.PathLike[str], name: str) -> Path | None:
    """A file in the same folder as a source, local or on the hub.

    Args:
      source: as for `resolve`.
      name: the name of the file to look for.

    Returns:
      The file's local path; None if there is no such file.

    Raises:
      UserError: the hub id or the path is malformed, or the hub cannot be reached.
    """
    wanted = _parse(source)
    if wanted is None:
        path = _local(source).with_name(name)
        return path if path.is_file() else None
    folder, slash, _ = wanted.file.rpartition("/")
    return _fetch(dataclasses.replace(wanted, file=f"{folder}{slash}{name}"), optional=True)


def _local(source: str | os.PathLike[str]) -> Path:
    path = files.user_path(os.fspath(source), "the file of weights")
    if not path.name:
        raise UserError(f"the file of weights is {short(os.fspath(source))}, which names no file")
    return path


def _parse(source: str | os.PathLike[str]) -> _HubFile | None:
    """The parts of a hub id; None for a local path."""
    if not str(source).startswith(SCHEME):
        return None
    parts = str(source).removeprefix(SCHEME).split("/", 2)
    if len(parts) < 2 or not all(parts) or ".." in str(source).split("/"):
        raise UserError(f"{source}: a hub id is {SCHEME}OWNER/REPOSITORY[@REVISION][/FILE]")
    repository, _, revision = parts[1].partition("@")
    return _HubFile(f"{parts[0]}/{repository}", revision or None, parts[2] if len(parts) == 3 else DEFAULT_FILE)


def _fetch(wanted: _HubFile, *, optional: bool = False) -> Any:
    """The file's path in the cache; None if it is `optional` and the repository does not have it."""
    # Imported here because it is slow to import, and local weights do not need it.
    import huggingface_hub
    from huggingface_hub import errors

    where: dict[str, Any] = {"repo_id": wanted.repository, "filename": wanted.file, "revision": wanted.revision}
    try:
        # A cached file is used as it is: a resumed run must not get other weights, nor need a network.
        kept = huggingface_hub.try_to_load_from_cache(**where)
        if isinstance(kept, str):
            return Path(kept)
        # The name has an underscore, and stands in the package's documentation.
        if optional and kept is huggingface_hub._CACHED_NO_EXIST:  # noqa: SLF001
            return None
        _check_reachable(wanted)
        return Path(huggingface_hub.hf_hub_download(**where))
    except errors.RemoteEntryNotFoundError as error:
        if optional:
            return None
        raise UserError(
            f"{wanted}: the repository has no such file; name one: {SCHEME}OWNER/REPOSITORY/FILE"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{wanted}: the repository has no such revision") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{wanted}: no such repository, or a private or gated one; if it is, run `hf auth login` or set HF_TOKEN"
        ) from error
    # All other errors: the hub's, its HTTP library's, the system's.
    except Exception as error:
        reason = shorten(str(error), 100) or type(error).__name__
        raise UserError(
            f"{wanted} is not in the cache and cannot be fetched ({reason}): run `hf download {wanted.repository} "
            f"{wanted.file}` with a network and the same HF_HOME, or name a local file"
        ) from error


def _check_reachable(wanted: _HubFile) -> None:
    """Raises the hub's or the network's error within seconds; a download alone would retry for a long time."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    url = huggingface_hub.hf_hub_url(wanted.repository, wanted.file, revision=wanted.revision)
    # A missing file is left to the download, which records it in the cache.
    with contextlib.suppress(errors.RemoteEntryNotFoundError):
        huggingface_hub.get_hf_file_metadata(url, timeout=TIMEOUT_SECONDS)
