"""`python -m vpns_jax shrink`: what it writes and prints, and the one line about mistakes."""

import numpy as np
import pytest

from tests.deploy import families
from vpns_jax import deploy

COMMAND = "shrink"


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    monkeypatch.setenv("VPNS_JAX_CACHE", str(tmp_path / "cache"))
    families.register(monkeypatch)


@pytest.mark.slow
def test_a_smaller_pair_is_written(call, tmp_path):
    before = families.classifier("small_vgg_bn")
    deploy.save("net", before)
    code, out, err = call("net", "--out=smaller", "--round-to=8")
    assert (code, err) == (0, "")
    after = deploy.load("smaller")
    sizes = [deploy.size_of(each) for each in (before, after)]
    assert sizes[1].bytes < sizes[0].bytes
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line[:1].isalpha()}
    for name in ("channels", "parameters", "multiply-adds", "bytes"):
        old, new = (getattr(size, name.replace("-", "_")) for size in sizes)
        assert rows[name] == [f"{old:,}", f"{new:,}", f"{100 * new / old:.1f}"]
    widths = after.description.options["widths"].values()
    assert widths
    assert all(width % 8 == 0 for width in widths)
    difference = float(out.partition("largest difference of the logits ")[2].split()[0])
    assert difference <= 1e-5
    images = families.images(before)
    expected, answers = (each.predict(images).probabilities for each in (before, after))
    np.testing.assert_allclose(answers, expected, atol=1e-5)


def test_a_network_that_answers_otherwise_is_not_written(call, tmp_path, monkeypatch):
    deploy.save("net", families.classifier("small_vgg_bn"))
    # As a fault in shrinking would have it.
    other = families.classifier("small_vgg_bn", seed=1)
    monkeypatch.setattr(deploy, "shrink", lambda classifier, round_to: other)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = call("net", "--out=smaller")
    assert (code, out) == (2, "")
    assert "the smaller network does not answer as the network does, so nothing was written" in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "arguments are required: NETWORK, --out"),
        (("net",), "arguments are required: --out"),
        (("net", "--out=a", "--round-to=0"), "--round-to is 0; it must lie in 1 ... 65536"),
        (("net", "--out=a", "--round-to=few"), "invalid int value: 'few'"),
        (("net", "--out="), "--out is empty"),
        (("net", "--out=net"), "net.safetensors exists already"),
        (("net", "--out=half"), "half.task.safetensors exists already"),
        (("net", "--out=no/a"), "there is no folder no"),
        (("net", "--out=a.packed.safetensors"), "a.packed.safetensors is the name of a packed network"),
        (("net", "--out=."), "'.' names no file"),
        ((".", "--out=a"), "'.' names no file"),
        (("nothing", "--out=a"), "nothing.task.safetensors: no such file"),
        (("net", "--out=a"), "net.task.safetensors: "),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(call, tmp_path, arguments, words):
    for name in ("net.safetensors", "net.task.safetensors", "half.task.safetensors"):
        (tmp_path / name).write_bytes(b"no network")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) <= 408
    assert words in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
