"""The command line: every mistake ends in one line on stderr, exit code 2, before anything is written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

import main
from vpns_jax import cli
from vpns_jax.experiment import pretraining

# ml_collections loads config files in a way that is deprecated in Python.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

ROOT = Path(__file__).parent.parent
# A small job, which each test makes wrong.
BASE = (
    "--config=configs/quickstart.py",
    "--config.data.name=digits",
    "--config.pretrain.data=digits",
    "--config.mapping.kind=head",
)


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Runs the program in this process; returns (exit code, stderr)."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments, workdir=tmp_path / "run", base=BASE):
        argv = ["main.py", *base, *arguments, f"--workdir={workdir}"]
        # ml_collections always looks for overrides in sys.argv.
        monkeypatch.setattr(sys, "argv", argv)
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            code = main.main(argv)
        return code, capfd.readouterr().err

    return run


def assert_refused(outcome, *words):
    code, err = outcome
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert len(err) <= len("error: \n") + 400
    for word in words:
        assert word in err


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
        ("--config.data.batch_size=4000", ("batch_size is 4000", "images of digits")),
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


@pytest.mark.slow
def test_weights_that_do_not_fit_are_listed_whole_on_demand(call, tmp_path):
    np.savez(tmp_path / "w.npz", **{f"deep{i}.weight": np.ones(3, np.float32) for i in range(100)})
    weights = ("--config.data.name=digits", f"--config.model.weights={tmp_path / 'w.npz'}")
    assert_refused(call(*weights), "w.npz does not fit resnet18", "100 missing", "100 not used", "--verbose lists all")
    code, err = call(*weights, "--verbose")
    lines = err.splitlines()
    assert code == 2
    assert len(lines[0]) <= 400
    assert "  deep99.weight is not used" in lines
    assert len(lines) == 1 + 100 + 100


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


def parsed(monkeypatch, *arguments):
    argv = ["main.py", *BASE, *arguments]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.chdir(ROOT)
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        return cli.parse(argv)


def test_lists_with_commas(monkeypatch):
    config, _ = parsed(monkeypatch, "--config.methods=vpns,hydra+posthoc", "--config.densities=0.2,0.1")
    assert config.methods == ("vpns", "hydra+posthoc")
    assert config.densities == (0.2, 0.1)


def test_a_key_by_its_former_name(monkeypatch):
    config, _ = parsed(monkeypatch, "--config.prompt.parametrisation=tanh", "--config.prune.epochs=3")
    assert (config.prompt.parametrization, config.prune.epochs) == ("tanh", 3)


def test_a_tilde_in_the_workdir_is_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert parsed(monkeypatch, "--workdir=~/runs/x")[1] == Path("/home/someone/runs/x")


def test_no_config(call):
    assert_refused(call(base=()), "--config", "configs/quickstart.py")


@pytest.mark.slow
def test_more_target_than_source_classes(call, tmp_path):
    mapped = ("--config.data.name=mnist5k", "--config.mapping.kind=frequency", "--config.model.options.num_classes=5")
    assert_refused(call(*mapped), "num_classes")
    fonts = ("--config.pretrain.data=digits", "--config.data.name=fonts62", "--config.mapping.kind=frequency")
    assert_refused(call(*fonts), "62", "10")
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_prepared_says_what_to_do(call, tmp_path):
    missing = ("--config.data.name=cifar10", f"--config.data.directory={tmp_path / 'none'}")
    assert_refused(call(*missing), "python -m vpns_jax.data prepare cifar10")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("model.name=vgg16", "prompt.canvas_size=16", "data.image_size=16"), ("16x16", "too small", "32")),
        (("model.prune_include=('head',)", "mapping.kind=head"), ("no kernel is left", "head")),
        (("granularity=2:4", "densities=(0.5,)"), ("conv1/kernel", "3 inputs are no multiple of 4", "exclude")),
        (("granularity=2:4", "densities=(0.4,)", "model.prune_exclude=('conv1',)"), ("2:4 has density 0.5", "0.4")),
        (("granularity=block:4x4",), ("conv1/kernel", "blocks are for dense layers")),
        (("granularity=channel", "target=macs:1e-5"), ("macs:1e-05 cannot be reached", "one channel left in each")),
        (("granularity=channel", "densities=(0.001,)"), ("density 0.001 keeps", "layers would be empty")),
        (("budget=matched", "methods=('imp',)"), ("'matched'", "rounds of imp", "prune.epochs")),
    ],
)
def test_a_network_that_cannot_do_what_is_asked(call, tmp_path, changes, words):
    assert_refused(call(*(f"--config.{change}" for change in changes)), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_vit_cannot_run_plain_images_at_their_own_size(call):
    base = (
        "--config=configs/vit_imagenet.py:ti",
        "--config.data.name=digits",
        "--config.data.batch_size=64",
        "--config.data.image_size=16",
        "--config.prompt.canvas_size=32",
        "--config.prompt.pad_size=4",
        "--config.protocol=reference",
    )
    assert_refused(call(base=base), "image_size is 16", "vit_ti16", "protocol paper")


def test_a_cache_that_cannot_be_written(call, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VPNS_JAX_CACHE", str(tmp_path / "file" / "cache"))
    assert_refused(call(), "cannot be written", "VPNS_JAX_CACHE")


def test_too_few_images_for_every_split(call, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (8, 8), 40 * i).save(tmp_path / "images" / name / f"{i}.png")
    few = (f"--config.data.name=folder:{tmp_path / 'images'}",)
    assert_refused(call(*few), "no validation images", "2 to train on")


def test_a_finished_cell_that_was_damaged(call, tmp_path):
    from vpns_jax.experiment import workdir

    with pytest.MonkeyPatch.context() as patch:
        config, _ = parsed(patch)
    folder = workdir.Workdir(tmp_path / "run", config)
    folder.write_cell("dense-s0-seed7", {"method": "dense", "cell": "dense-s0-seed7", "test": 0.5})
    path = folder.cell("dense-s0-seed7")
    path.write_text(path.read_text().replace("0.5", "0.9"))
    assert_refused(call(), "dense-s0-seed7.json", "remove it")


def test_a_workdir_that_cannot_be_written(call, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert_refused(call(workdir=tmp_path / "file" / "run"), "--workdir", "cannot be written")


def test_a_folder_with_other_things_is_left_alone(call, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.txt").write_text("years of work")
    assert_refused(call(workdir=folder), "neither empty nor a run's folder")
    assert [path.name for path in folder.iterdir()] == ["chapter1.txt"]


def test_a_damaged_source_network_in_the_cache(call, monkeypatch, tmp_path):
    path = tmp_path / "source.npz"
    path.write_bytes(b"PK\x03\x04 no more")
    monkeypatch.setattr(pretraining, "cache_path", lambda config: path)
    assert_refused(call(), str(path), "damaged", "remove it")


@pytest.mark.slow
def test_the_program_itself_exits_with_2():
    done = subprocess.run(
        [sys.executable, "main.py", "--config=configs/quickstart.py", "--config.densities=(2.0,)"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr == "error: config.densities holds 2.0; a density must lie in (0, 1], the share kept\n"
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["-u", "main.py", "--help"],
        ["main.py", "--help"],
        ["-m", "vpns_jax", "--help"],
        # By argparse, which ends the program itself.
        ["-m", "vpns_jax", "data", "--help"],
        ["-m", "vpns_jax.data", "list"],
    ],
)
def test_a_command_ends_quietly_if_nobody_reads_what_it_prints(words):
    """Where Python writes at once, and where it writes at the end."""
    read, write = os.pipe()
    os.close(read)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    ended = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_another_broken_pipe_is_an_error_like_any_other():
    def run():
        raise BrokenPipeError("of a process")

    with pytest.raises(BrokenPipeError, match="of a process"):
        cli.end(run)
