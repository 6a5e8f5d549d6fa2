"""Removes the dead parts of a finished network: a smaller file with the same logits, which runs faster everywhere.

Dead parts are channels, hidden units and attention heads that are constant or that no layer reads, and outputs of the
head that no class is mapped to. The logits of both networks on random images are compared before a file is written.
"""

import argparse
import dataclasses

from vpns_jax import cli, deploy, files
from vpns_jax.analysis.tables import aligned
from vpns_jax.arguments import Parser, add_model, add_verbose, is_verbose
from vpns_jax.deploy import loading, subnetworks, verifying
from vpns_jax.errors import UserError
from vpns_jax.models.option_checks import MOST_OUTPUTS
from vpns_jax.parallel import startup

USAGE = "python -m vpns_jax shrink NETWORK --out=FILE [--round-to=N] [--model=FUNCTION] [--verbose]"
HEADINGS = ("", "before", "after", "after / before\n%")


def main(arguments: list[str]) -> int:
    """Runs `python -m vpns_jax shrink`.

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
    parser.add_argument("--out", required=True, metavar="FILE", help="the new CELL.safetensors")
    parser.add_argument(
        "--round-to",
        type=int,
        default=1,
        metavar="N",
        help="keep some dead channels, so that widths are multiples of N; 8 suits most devices (default: 1)",
    )
    parsed = parser.parse_args(arguments)
    if not 1 <= parsed.round_to <= MOST_OUTPUTS:
        raise UserError(f"--round-to is {parsed.round_to}; it must lie in 1 ... {MOST_OUTPUTS}")
    return parsed


def _run(parsed: argparse.Namespace) -> None:
    source = files.user_path(parsed.network, "NETWORK")
    path = loading.new_file(files.user_path(parsed.out, "--out"))
    files.check_free(path, subnetworks.task_path(path))
    startup.prepare()
    before = deploy.load(source, model=parsed.model)
    after = deploy.shrink(before, round_to=parsed.round_to)
    images = verifying.images(before)
    difference = verifying.compare(verifying.logits(after, images), verifying.logits(before, images))
    verifying.check(difference, before, "the smaller network")
    deploy.save(path, after)
    print(f"{aligned(HEADINGS, _rows(deploy.size_of(before), deploy.size_of(after)))}\n{difference}")


def _rows(before: deploy.Size, after: deploy.Size) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for field in dataclasses.fields(deploy.Size):
        old, new = getattr(before, field.name), getattr(after, field.name)
        rows.append((field.name.replace("_", "-"), f"{old:,}", f"{new:,}", f"{100 * new / old:.1f}"))
    return rows
