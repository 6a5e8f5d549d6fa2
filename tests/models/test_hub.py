"""Files on the hub are downloaded once, by its own library; all errors are one line, and none waits for a network."""

import functools
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from vpns_jax import models
from vpns_jax.errors import UserError
from vpns_jax.models import hub

COMMIT = "0123456789" * 4


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with the headers that the hub's library asks for."""

    def end_headers(self) -> None:
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{self.path.rpartition("/")[2]}"')
        if "no_such" in self.path:
            self.send_header("X-Error-Code", f"{self.path.split('/')[1].partition('-')[2]}NotFound")
        elif self.path.split("/")[1] == "timm":
            self.send_header("X-Error-Code", "EntryNotFound")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def point_to(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    template = f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def closed() -> Iterator[int]:
    """A port that refuses connections: it is taken, and nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: int) -> Path:
    """An empty cache of the library, and an address of the hub that refuses connections."""
    # The library read its environment variables when it was imported.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    point_to(monkeypatch, closed)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served as the hub."""
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        point_to(monkeypatch, server.server_port)
        yield folder
        server.shutdown()
        thread.join()


def put(served: Path, name: str, data: bytes, revision: str = "main") -> Path:
    path = served / "timm/net/resolve" / revision / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_hub_file_is_fetched_once(served: Path) -> None:
    remote = put(served, "model.safetensors", b"weights")
    put(served, "sub/other.pth", b"others", revision="v2")
    path = hub.resolve("hf://timm/net")
    assert path.read_bytes() == b"weights"
    remote.write_bytes(b"changed")
    assert hub.resolve("hf://timm/net") == path
    assert path.read_bytes() == b"weights"
    assert hub.resolve("hf://timm/net@v2/sub/other.pth").read_bytes() == b"others"


def test_a_kept_file_needs_no_network(served: Path, closed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    put(served, "model.safetensors", b"weights")
    path = hub.resolve("hf://timm/net")
    point_to(monkeypatch, closed)
    assert hub.resolve("hf://timm/net") == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.resolve("hf://timm/net") == path


@pytest.mark.parametrize("offline", [False, True])
def test_without_a_network_one_line_says_so_and_no_download_is_tried(
    offline: bool, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download would be tried again and again for minutes."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda **_: pytest.fail("tried to download"))
    with pytest.raises(UserError) as caught:
        models.load_pretrained("resnet18")
    text = str(caught.value)
    assert "hf://timm/resnet18.tv_in1k/model.safetensors is not in the cache and cannot be fetched" in text
    assert "`hf download timm/resnet18.tv_in1k model.safetensors`" in text
    assert ("HF_HUB_OFFLINE is set" in text) == offline
    assert "\n" not in text
    assert len(text) <= 400
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Sign in</title>", b"\n <html>503</html>"])
def test_a_page_in_a_weight_files_place_is_not_kept(page: bytes, served: Path, cache: Path) -> None:
    put(served, "model.safetensors", page)
    with pytest.raises(UserError, match="sent a web page instead of weights; the page was removed from"):
        hub.resolve("hf://timm/net")
    assert not [path for path in cache.rglob("*") if path.is_file() and path.read_bytes() == page]
    put(served, "model.safetensors", b"weights")
    assert hub.resolve("hf://timm/net").read_bytes() == b"weights"


def test_what_the_hub_does_not_have(served: Path) -> None:
    for source, reason in (
        ("hf://timm/net/none.npz", "hf://timm/net/none.npz: the repository has no such file; name one"),
        ("hf://no_such-Repo/net", "no such repository, or a private or gated one; .*HF_TOKEN"),
        ("hf://no_such-Revision/net@v3", "no such revision"),
        ("hf://a b/net", "Repo id must use"),
    ):
        with pytest.raises(UserError, match=reason) as caught:
            hub.resolve(source)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) <= 400


@pytest.mark.parametrize("source", ["hf://timm", "hf:///x", "hf://a/../b", "hf://a/b/"])
def test_malformed_hub_ids_are_refused(source: str) -> None:
    with pytest.raises(UserError, match="a hub id is hf://OWNER"):
        models.load_pretrained("resnet18", source)


@pytest.mark.parametrize(
    ("source", "words"), [("~nobody-of-that-name/w.pth", "there is no such user"), (".", "names no file")]
)
def test_paths_that_cannot_be_are_refused(source: str, words: str) -> None:
    for function in (hub.resolve, lambda source: hub.beside(source, "config.json")):
        with pytest.raises(UserError, match=words):
            function(source)


def test_what_lies_beside_a_file(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert hub.beside(tmp_path / "w.pth", "config.json") == tmp_path / "config.json"
    assert hub.beside(tmp_path / "w.pth", "other.json") is None
    put(served, "sub/config.json", b"{}")
    config = hub.beside("hf://timm/net/sub/w.pth", "config.json")
    assert config is not None
    assert config.read_bytes() == b"{}"
    assert hub.beside("hf://timm/net", "config.json") is None
    # The cache now knows that this file does not exist, but knows nothing about other files.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.beside("hf://timm/net", "config.json") is None
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        hub.beside("hf://timm/net", "other.json")
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE.*; or set model\.mean and model\.std"):
        models.find_normalization("resnet18", "hf://timm/net")
