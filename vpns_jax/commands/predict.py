"""Classifies images with a finished network, given only its files.

NETWORK is a CELL.safetensors that a run has written, with its CELL.task.safetensors beside it. A folder whose
sub-folders are named like the classes also gives accuracy, per-class recall and a confusion matrix.
"""

import argparse
import sys
import time

from tqdm import tqdm

from vpns_jax import cli, deploy, files
from vpns_jax.arguments import Parser, add_model, add_verbose, is_verbose
from vpns_jax.commands import scores
from vpns_jax.commands.answers import Answers
from vpns_jax.commands.gathering import Gathered, gather
from vpns_jax.data import printable
from vpns_jax.deploy import Answer, Classifier
from vpns_jax.deploy.classifier import BATCH_SIZE
from vpns_jax.errors import UserError
from vpns_jax.parallel import startup

USAGE = (
    "python -m vpns_jax predict NETWORK IMAGES_OR_FOLDER... [--top-k=K] [--json | --csv] [--plain] [--batch-size=B] "
    "[--model=FUNCTION] [--verbose]"
)
MOST_BATCH = 2**16


def main(arguments: list[str]) -> int:
    """Runs `python -m vpns_jax predict`.

    Args:
      arguments: the arguments after the command's name.

    Returns:
      The exit code: 0, or as `cli.end` says.
    """
    return cli.end(lambda: _run(_parse(arguments)), verbose=is_verbose(arguments))


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(usage=USAGE, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", metavar="NETWORK", help="a finished network, CELL.safetensors")
    add_model(parser)
    add_verbose(parser)
    parser.add_argument("images", metavar="IMAGES_OR_FOLDER", nargs="+", help="image files, and folders of them")
    parser.add_argument("--top-k", type=int, default=1, help="how many classes to name for each image (default: 1)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--csv", action="store_true", help="print CSV instead of a table")
    parser.add_argument("--plain", action="store_true", help="leave the network's prompt off")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help=f"images at once (default: {BATCH_SIZE})")
    parsed = parser.parse_args(arguments)
    if parsed.top_k < 1:
        raise UserError(f"--top-k is {parsed.top_k}; it must be at least 1")
    if not 1 <= parsed.batch_size <= MOST_BATCH:
        raise UserError(f"--batch-size is {parsed.batch_size}; it must lie in 1 ... {MOST_BATCH}")
    return parsed


def _run(parsed: argparse.Namespace) -> None:
    gathered = gather(parsed.images)
    startup.prepare()
    classifier = deploy.load(files.user_path(parsed.network, "NETWORK"), model=parsed.model)
    prompted = classifier.description.prompted and not parsed.plain
    classified, seconds = _classify(classifier, gathered, prompted=prompted, batch_size=parsed.batch_size)
    answers = Answers.of(classified, gathered.labels(classifier.classes), classifier.classes)
    notes = (*gathered.notes, gathered.unknown_folders(classifier.classes))
    notes += tuple(f"skipped {path}: {reason}" for path, reason in answers.skipped)
    read = len(classified) - len(answers.skipped)
    speed = f"{read:,} images in {seconds:.1f} s, {read / seconds:,.3g} images/s"
    sys.stderr.writelines(f"{note}\n" for note in (*notes, speed) if note)
    if parsed.json:
        network = printable(parsed.network)
        sys.stdout.write(answers.as_json(parsed.top_k, network=network, prompted=prompted))
        return
    sys.stdout.write(answers.as_csv(parsed.top_k) if parsed.csv else answers.as_table(parsed.top_k))
    if answers.confusion is not None:
        # A program that reads the CSV from standard output must not find other text there.
        place = sys.stderr if parsed.csv else sys.stdout
        place.write(f"\n{scores.as_text(answers.confusion, classifier.classes)}")


def _classify(
    classifier: Classifier, gathered: Gathered, *, prompted: bool, batch_size: int
) -> tuple[list[Answer], float]:
    """Classifies the files, with a progress bar on a terminal; returns the answers and the seconds."""
    count, began = len(gathered.paths), time.perf_counter()
    batch_size = min(batch_size, count)
    answers = deploy.classify_files(classifier, gathered.paths, prompted=prompted, batch_size=batch_size)
    bar = tqdm(answers, desc="classifying", total=count, unit=" images", disable=None, leave=False)
    return list(bar), time.perf_counter() - began
