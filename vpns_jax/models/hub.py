"""Weight files on the Hugging Face hub, fetched and kept by its own library."""

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

from vpns_jax.errors import UserError, shorten
from vpns_jax.models import formats

SCHEME = "hf://"
DEFAULT_FILE = "model.safetensors"
# A first answer that takes longer will not come: better to say so than to seem to hang.
TIMEOUT_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class _HubFile:
    """A file in a repository; no revision is its main branch."""

    repository: str
    revision: str | None
    file: str

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.repository}{revision}/{self.file}"


def resolve(source: str | os.PathLike[str]) -> Path:
    """The local file behind a source.

    Args:
      source: a local path, returned as it is; or a hub id `hf://OWNER/REPOSITORY[@REVISION][/FILE]`, revision
        "main" and file "model.safetensors" unless named. `huggingface_hub` fetches it once and keeps it in its
        cache; its variables hold: HF_HOME for the place, HF_ENDPOINT for a mirror, HF_TOKEN, HF_HUB_OFFLINE=1.

    Raises:
      UserError: for a malformed hub id, or if the file cannot be had; says what to do.
    """
    wanted = _parse(source)
    if wanted is None:
        return Path(source).expanduser()
    path = _fetch(wanted)
    try:
        formats.check_no_page(path)
    except UserError as error:
        # The blob as well as the link to it, or it would be taken for the file the next time.
        for kept in (path.resolve(), path):
            kept.unlink(missing_ok=True)
        raise UserError(
            f"{wanted}: the hub, or a proxy before it, sent a page and no weights; it was removed from the cache. "
            "Check HF_ENDPOINT and the proxy, or log in to the network"
        ) from error
    return path


def beside(source: str | os.PathLike[str], name: str) -> Path | None:
    """The file of that name in the folder of a source, local or on the hub; None if there is none.

    Args:
      source: as for `resolve`.
      name: of the file to look for.

    Raises:
      UserError: whether there is one cannot be told, since the hub cannot be reached.
    """
    wanted = _parse(source)
    if wanted is None:
        path = Path(source).expanduser().with_name(name)
        return path if path.is_file() else None
    folder, slash, _ = wanted.file.rpartition("/")
    return _fetch(dataclasses.replace(wanted, file=f"{folder}{slash}{name}"), optional=True)


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
    """Its path in the cache; None if it is `optional` and the repository has none."""
    # Not needed, and slow to import, where weights are local.
    import huggingface_hub
    from huggingface_hub import errors

    where: dict[str, Any] = {"repo_id": wanted.repository, "filename": wanted.file, "revision": wanted.revision}
    try:
        # What is kept is taken as it is: a run that goes on must not find other weights, nor need a network.
        kept = huggingface_hub.try_to_load_from_cache(**where)
        if isinstance(kept, str):
            return Path(kept)
        if optional and kept is huggingface_hub._CACHED_NO_EXIST:
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
    # Its own, its HTTP library's, the system's: whatever else goes wrong on the way.
    except Exception as error:
        reason = shorten(str(error), 100) or type(error).__name__
        raise UserError(
            f"{wanted} is not in the cache and cannot be fetched ({reason}): run `hf download {wanted.repository} "
            f"{wanted.file}` with a network and the same HF_HOME, or name a local file"
        ) from error


def _check_reachable(wanted: _HubFile) -> None:
    """Raises whatever the hub, or the way to it, has against the file, within seconds: a download tries on and on."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    url = huggingface_hub.hf_hub_url(wanted.repository, wanted.file, revision=wanted.revision)
    # That there is no such file is for the download to say, which notes it in the cache.
    with contextlib.suppress(errors.RemoteEntryNotFoundError):
        huggingface_hub.get_hf_file_metadata(url, timeout=TIMEOUT_SECONDS)
