"""`python -m vpns_jax export`: what it writes, and the one line about mistakes."""

import pytest

from tests.deploy import finished
from tests.experiment import small
from vpns_jax import deploy

COMMAND = "export"


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    with small.world(tmp_path, monkeypatch):
        deploy.save("net", finished.classifier())
        yield


@pytest.mark.slow
def test_a_file_is_written(call, tmp_path):
    code, out, err = call("net", "--format=stablehlo", "--out=net.stablehlo", "--platforms=cpu")
    assert (code, err) == (0, "")
    size = (tmp_path / "net.stablehlo").stat().st_size
    assert out.startswith(f"net.stablehlo: {size:,} bytes; largest difference of the logits ")
    assert "the same class for 100% of 8 random images" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "arguments are required: NETWORK, --format, --out"),
        (("net", "--format=stablehlo"), "arguments are required: --out"),
        (("net", "--format=tflite", "--out=a.tflite"), "unknown format 'tflite'; known: "),
        (("net", "--format=stablehlo", "--out=a.txt"), "which is .stablehlo"),
        (("net", "--format=stablehlo", "--out="), "--out is empty"),
        (("net", "--format=stablehlo", "--out=here.stablehlo"), "exists already"),
        (("net", "--format=stablehlo", "--out=dangling.stablehlo"), "exists already"),
        (("net", "--format=safetensors", "--out=a.packed.safetensors"), "which is the suffix of format packed"),
        (("net", "--format=timm", "--out=."), ". exists already"),
        (("net", "--format=stablehlo", "--out=no/a.stablehlo"), "there is no folder no"),
        (("net", "--format=stablehlo", "--out=a.stablehlo", "--platforms=cpu,abacus"), "unknown platforms 'abacus'"),
        (("nothing", "--format=stablehlo", "--out=a.stablehlo"), "nothing.task.safetensors: no such file"),
        (("broken", "--format=stablehlo", "--out=a.stablehlo"), "broken.task.safetensors: "),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(call, tmp_path, arguments, words):
    (tmp_path / "here.stablehlo").write_text("mine")
    (tmp_path / "dangling.stablehlo").symlink_to("nowhere")
    (tmp_path / "broken.safetensors").write_bytes(b"no network")
    (tmp_path / "broken.task.safetensors").write_bytes(b"no network")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) <= 408
    assert words in err
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "here.stablehlo").read_text() == "mine"
