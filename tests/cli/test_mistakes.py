"""The command line: every mistake ends in one line on stderr, exit code 2, before anything is written."""

import sys

import pytest

from tests.cli.program import ROOT, assert_refused

# ml_collections loads config files in a way that is deprecated in Python.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.methods=('vpn',)", ("'vpn'", "vpns", "hydra", "magnitude")),
        ("--config.model.name=resnet19", ("'resnet19'", "resnet18", "vit_b16")),
        ("--config.data.name=cifar11", ("'cifar11'", "cifar10", "folder:")),
        ("--config.prompt.kind=frame", ("'frame'", "pad", "expand")),
        ("--config.mapping.kind=flm", ("'flm'", "frequency", "iterative")),
        ("--config.protocol=released", ("'released'", "paper", "reference")),
        ("--config.prune.batch_norm=off", ("'off'", "update", "frozen")),
        ("--config.prune.scores.optimizer=rmspropp", ("'rmspropp'", "adam", "sgd")),
        ("--config.densities=(0.2, 0.0)", ("0.0", "(0, 1]")),
        ("--config.densities=(1.5,)", ("1.5", "(0, 1]")),
        ("--config.densities=()", ("densities", "at least one")),
        ("--config.seeds=(7, 7)", ("seeds", "each once")),
        ("--config.prompt.pad_size=17", ("pad_size is 17", "canvas of 32 px", "1 ... 16")),
        ("--config.data.image_size=40", ("image_size is 40", "canvas_size = 32")),
        ("--config.seeds=(7, 4294967303)", ("4294967303", "at most 4,294,967,295")),
        ("--config.prune.prompt.learning_rate=-1.0", ("config.prune.prompt", "learning_rate is -1.0")),
        ("--config.densities=(0.1, 0.10000000001)", ("densities", "s90-seed7")),
        ("--config.model.name=vit_ti16", ("width",)),
        ("--config.data.batch_size=0", ("batch_size is 0", "at least 1")),
        ("--config.data.batch_size=4000", ("config.data.batch_size is 4000", "images of digits")),
        ("--config.pretrain.batch_size=4000", ("config.pretrain.batch_size is 4000", "images of digits")),
        ("--config.data.batch_size=12", ("config.data.batch_size is 12; 8 devices allow",)),
        ("--config.mesh.fsdp=3", ("data -1 x fsdp 3", "the number of devices, 8")),
        ("--processes=2", ("--coordinator and --process missing",)),
        ("--config.data.val_fraction=1.0", ("val_fraction is 1.0", "(0, 1)")),
        ("--config.data.exif=yes", ("data.exif 'yes'", "auto, on, off")),
        ("--config.data.grey_range=12", ("data.grey_range '12'", "auto, full, measured")),
        ("--config.data.max_megapixels=0.0", ("data.max_megapixels is 0.0", "above 0")),
        ("--config.prune.epochs=0", ("epochs is 0",)),
        ("--config.model.prune_include=('nothing_*',)", ("nothing_*",)),
        ("--config.model.options.dropout=0.1", ("dropout", "width, stem, dtype")),
        ("--config.foo=1", ("foo", "configs/default.py")),
        ("--config.prune.epochs=many", ("many",)),
        ("--config=configs/missing.py", ("configs/missing.py",)),
        ("--config=configs/vit_imagenet.py:xxl", ("xxl", "b, s, ti")),
        ("surplus", ("surplus",)),
        ("--config.prune.epoch=3", ("no key prune.epoch;", "did you mean epochs?")),
        ("--config.prun.epochs=3", ("no key prun;", "did you mean prune?")),
        ("--config.methods={'vpns': 1}", ("config.methods is {'vpns': 1}", "tuple")),
        ("--config.methods=vpns,hydr", ("config.methods", "'hydr'", "hydra")),
        ("--config.prompt.parametrisation=exp", ("config.prompt.parametrization", "'exp'", "tanh")),
        ("--config.name=../x", ("config.name is '../x'", "folder within runs/")),
        ("--config.name=a\nb", ("config.name", "control characters")),
        ("--config.data.name=folder:~nosuchuser/x", ("config.data.name", "~nosuchuser", "no such user")),
        ("--config.data.directory=~nosuchuser/x", ("config.data.directory", "no such user")),
        ("--config.model.weights=" + "w" * 300, ("config.model.weights", "255 bytes")),
        ("--config.transfer.mask=a\0b", ("config.transfer.mask", "control characters")),
        ("--config.model.options.dtype=float64", ("config.model.options", "dtype", "float32, bfloat16")),
        ("--config.model.options.width=1e6", ("config.model.options", "width", "16")),
        ("--config.prune.epochs=9223372036854775808", ("config.prune.epochs", "at most 100,000", "weeks")),
        ("--config.data.workers=" + "9" * 30, ("config.data.workers", "at most 1,024")),
        ("--config.prompt.canvas_size=100000", ("config.prompt.canvas_size", "at most 8,192", "GB")),
        ("--config.retrain.weights.learning_rate=1e39", ("config.retrain.weights.learning_rate", "at most")),
        ("--config.imp.drop=1e-9", ("config.imp.drop is 1e-09", "share")),
        ("--workdirr=x", ("workdirr",)),
    ],
)
def test_mistakes(call, tmp_path, argument, words):
    assert_refused(call(argument), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise SystemExit(3)", ("SystemExit: 3",)),
        ("def get_config():\n  raise GeneratorExit('gone')", ("GeneratorExit: gone",)),
        ("def get_config():\n  return None", ("returns None", "ConfigDict")),
        ("def get_config():\n  return {'a': 1}", ("returns {'a': 1}", "ConfigDict")),
        ("def get_config():\n  raise KeyError('epochs')", ("KeyError: 'epochs'",)),
        ("def get_config():\n  raise ValueError('a\\nb' * 1000)", ("--config",)),
        ("def get_config():\n  return get_config()", ("RecursionError",)),
        ("x = (", ("never closed",)),
        ("x = 1", ("get_config",)),
        ("x = 1 / 0", ("ZeroDivisionError",)),
    ],
)
def test_config_files_that_go_wrong(call, tmp_path, monkeypatch, text, words):
    # ml_collections loads all config files as one module.
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    (tmp_path / "bad.py").write_text(text)
    assert_refused(call(base=(f"--config={tmp_path / 'bad.py'}",)), *words)


@pytest.mark.parametrize(
    ("workdir", "words"),
    [
        ("", ("--workdir is empty",)),
        ("~nosuchuser/x", ("--workdir is '~nosuchuser/x'", "no such user")),
        ("a\nb", ("--workdir", "control characters")),
        ("x" * 300, ("--workdir", "255 bytes")),
        ("/".join(["x" * 200] * 30), ("--workdir", "3500 bytes")),
    ],
)
def test_a_workdir_that_is_no_path(call, tmp_path, workdir, words):
    before = set(ROOT.iterdir())
    assert_refused(call(workdir=workdir), *words)
    assert set(ROOT.iterdir()) == before


def test_no_config(call):
    assert_refused(call(base=()), "--config", "configs/quickstart.py")
