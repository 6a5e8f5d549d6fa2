"""The command `python -m vpns_jax.data`, which lists the data sets and prepares one."""

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vpns_jax import files, references
from vpns_jax.arguments import Parser
from vpns_jax.data import folder, own, registry, tfds_sets
from vpns_jax.data.source import Original
from vpns_jax.data.text import printable
from vpns_jax.errors import UserError, one_line

USAGE = "python -m vpns_jax.data list, or prepare NAME [--data_dir=DIR] [--manual_dir=DIR]"


def main(arguments: list[str]) -> int:
    """Runs the command line.

    Args:
      arguments: the command line after the program's name.

    Returns:
      The exit code: 0; 2 after an error that the user can correct; 130 after an interrupt.
    """
    files.escape_output()
    try:
        parsed = _parse(arguments)
        if parsed.command == "list":
            print("\n".join(describe(name) for name in registry.names()))
        else:
            prepare(parsed.name, data_dir=parsed.data_dir, manual_dir=parsed.manual_dir)
    except UserError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; downloaded files are kept\n")
        return 130
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(usage=USAGE, description="Data sets: list them, prepare one.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", usage=USAGE, help="list the data sets and where each comes from")
    prepare_parser = commands.add_parser(
        "prepare",
        usage=USAGE,
        help="download a data set, or convert a manually downloaded archive, and check it",
    )
    prepare_parser.add_argument("name", help="a data set that `list` shows, or folder:/path/to/images")
    prepare_parser.add_argument(
        "--data_dir", help="the folder for data sets (default: $TFDS_DATA_DIR, or ~/tensorflow_datasets)"
    )
    prepare_parser.add_argument(
        "--manual_dir", help="the folder of a manually downloaded archive (default: DATA_DIR/downloads/manual)"
    )
    parsed = parser.parse_args(arguments)
    for flag in ("data_dir", "manual_dir"):
        if getattr(parsed, flag, None) is not None:
            files.user_path(getattr(parsed, flag), f"--{flag}")
    if getattr(parsed, "name", "").startswith(folder.PREFIX):
        files.user_path(parsed.name.removeprefix(folder.PREFIX), folder.PREFIX.rstrip(":"))
    return parsed


def describe(name: str) -> str:
    """A line that says where a data set comes from."""
    if name in registry.BUNDLED:
        return f"{name:14} is part of a package: nothing to prepare"
    entry = tfds_sets.ENTRIES[name]
    what = f"downloads {entry.download}" if entry.download else f"by hand: {', '.join(entry.manual)}"
    return f"{name:14} {what}" + ("; preparing it needs TensorFlow" if entry.needs_tensorflow else "")


def prepare(name: str, *, data_dir: str | None = None, manual_dir: str | None = None) -> None:
    """Prepares a data set for `load` and `open_sources`, with progress bars, and prints its classes and sizes.

    Args:
      name: the data set's name, or `folder:/path`.
      data_dir: the folder for data sets; None takes $TFDS_DATA_DIR, or ~/tensorflow_datasets.
      manual_dir: the folder of a manually downloaded archive; None takes `downloads/manual` in the folder of data sets.

    Raises:
      UserError: the name is unknown, an archive is missing, TensorFlow is missing and the builder needs it, or the
        download fails.
    """
    registry.check(name)
    if name in registry.BUNDLED:
        print(describe(name))
        original = registry.BUNDLED[name]()
    elif name.startswith(folder.PREFIX):
        original = folder.open_folder(name, progress=True)
    elif references.is_reference(name):
        original = own.open_own(name)
    else:
        _prepare_tfds(name, data_dir=data_dir, manual_dir=manual_dir)
        original = tfds_sets.open_tfds(name, data_dir=data_dir)
    print("\n".join((*_classes(original), *original.notes, f"{printable(name)} is ready: {_summary(original)}")))


def _prepare_tfds(name: str, *, data_dir: str | None, manual_dir: str | None) -> None:
    import tensorflow_datasets as tfds

    entry = tfds_sets.ENTRIES[name]
    existing = tfds_sets.make_builder(name, data_dir=data_dir)
    if existing.info.splits:
        tfds_sets.open_tfds(name, data_dir=data_dir)  # Raises an error if the file format is not supported.
        print(f"{name} is already prepared in {existing.data_dir}")
    else:
        # The default is TFDS's own folder for such files.
        manual = Path(manual_dir).expanduser() if manual_dir else Path(existing.data_dir_root, "downloads", "manual")
        _check_prerequisites(name, entry, manual)
        source = f"downloads {entry.download}" if entry.download else f"reads {manual}"
        print(f"preparing {name}: {source}, and writes {existing.data_dir}", flush=True)
        builder = tfds_sets.make_builder(name, data_dir=data_dir, file_format="array_record")
        config = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
        try:
            builder.download_and_prepare(download_config=config)
        except UserError:
            raise
        # TFDS raises errors of many classes: for a server that is gone, a full disk, or another layout of the archive.
        except Exception as error:
            raise UserError(f"preparing {name} failed: {' '.join(str(error).split())}") from error
    for split in filter(None, (entry.train, entry.val, entry.test)):
        tfds_sets.read_labels(tfds_sets.TfdsSource(name, data_dir, split), progress=True)


def _check_prerequisites(name: str, entry: tfds_sets.Entry, manual: Path) -> None:
    missing = [str(manual / path) for path in entry.manual if not (manual / path).exists()]
    if missing:
        raise UserError(
            f"data set {name!r} must be downloaded by hand; missing: {', '.join(missing)} ({entry.instructions}). "
            "Put it there, or name another folder with --manual_dir"
        )
    if entry.needs_tensorflow and importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"preparing {name!r} needs TensorFlow (reading it does not): pip install 'vpns_jax[prepare]', here or in "
            "another environment"
        )


def _classes(original: Original) -> Iterator[str]:
    """A table with the number of images of each class in each split."""
    splits = {"train": original.train, "val": original.val, "test": original.test}
    present = {name: source for name, source in splits.items() if source is not None}
    counts = [np.bincount(source.labels, minlength=len(original.classes)) for source in present.values()]
    width = max(map(len, ("class", *original.classes)))
    yield "  ".join(["class".ljust(width), *(f"{name:>7}" for name in present)])
    for row, name in enumerate(original.classes):
        yield "  ".join([name.ljust(width), *(f"{count[row]:>7}" for count in counts)])


def _summary(original: Original) -> str:
    sizes = [f"{len(original.train)} images to train on", f"{len(original.test)} to test on"]
    if original.val is not None:
        sizes.append(f"{len(original.val)} for validation")
    if original.skipped:
        sizes.append(f"{len(original.skipped)} unreadable files left out:\n  " + "\n  ".join(original.skipped))
    return f"{len(original.classes)} classes, " + ", ".join(sizes)
