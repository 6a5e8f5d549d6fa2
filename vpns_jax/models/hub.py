"""Weight files on the Hugging Face hub, fetched once into a cache folder."""

import os
import urllib.error
import urllib.request
from pathlib import Path

from vpns_jax import files
from vpns_jax.errors import UserError

SCHEME = "hf://"
DEFAULT_FILE = "model.safetensors"
TIMEOUT_SECONDS = 30


def resolve(source: str | os.PathLike[str]) -> Path:
    """The local file behind a source.

    Args:
      source: a local path, returned as it is; or a hub id `hf://OWNER/REPOSITORY[@REVISION][/FILE]`, revision
        "main" and file "model.safetensors" unless named. A hub file is kept (see `files.cache_directory`) and never
        fetched twice.
        HF_ENDPOINT names a mirror.

    Raises:
      UserError: for a malformed hub id, or if the file cannot be fetched; says what to fetch and where to put it.
    """
    if not str(source).startswith(SCHEME):
        return Path(source).expanduser()
    parts = str(source).removeprefix(SCHEME).split("/", 2)
    if len(parts) < 2 or not all(parts) or ".." in str(source).split("/"):
        raise UserError(f"{source}: a hub id is {SCHEME}OWNER/REPOSITORY[@REVISION][/FILE]")
    repository, _, revision = parts[1].partition("@")
    file = parts[2] if len(parts) == 3 else DEFAULT_FILE
    target = files.cache_directory() / "weights" / parts[0] / parts[1] / file
    if not target.is_file():
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        url = f"{endpoint}/{parts[0]}/{repository}/resolve/{revision or 'main'}/{file}"
        _fetch(url, target)
    return target


def _fetch(url: str, target: Path) -> None:
    """Downloads to a neighbouring name first: what has the final name is whole."""
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, unfinished.open("wb") as file:
            expected = response.headers.get("Content-Length")
            while chunk := response.read(1 << 20):
                file.write(chunk)
            if expected is not None and file.tell() != int(expected):
                raise OSError(f"got {file.tell()} of {expected} bytes")
        unfinished.replace(target)
    except (OSError, ValueError) as error:  # urllib's own errors are OSErrors.
        unfinished.unlink(missing_ok=True)
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"cannot fetch {url} ({reason}): download it elsewhere and place it at {target}, or name its path"
        ) from error
