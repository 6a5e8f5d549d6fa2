"""Writes a finished network in a format that other programs run.

The file is read back and run on random images. It gets its name only if its logits are the network's, with the weights
rounded if the format rounds them; otherwise nothing is written.
"""

import argparse

from vpns_jax import cli, deploy, files
from vpns_jax.arguments import Parser, add_model, add_verbose, is_verbose
from vpns_jax.data import printable
from vpns_jax.deploy import exports
from vpns_jax.parallel import startup

USAGE = (
    "python -m vpns_jax export NETWORK --format=FORMAT --out=PATH [--plain] [--model=FUNCTION] [--verbose] "
    "[--OPTION=VALUE]"
)


def main(arguments: list[str]) -> int:
    """Runs `python -m vpns_jax export`.

    Args:
      arguments: the arguments after the command's name.

    Returns:
      The exit code: 0, or as `cli.end` says.
    """
    return cli.end(lambda: _run(_parser().parse_args(arguments)), verbose=is_verbose(arguments))


def _parser() -> Parser:
    about = "\n".join(f"  {each.name:12} {each.meaning}" for each in exports.FORMATS.values())
    parser = Parser(
        usage=USAGE,
        description=f"{__doc__}\nformats:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("network", metavar="NETWORK", help="a finished network, CELL.safetensors")
    add_model(parser)
    add_verbose(parser)
    parser.add_argument("--format", required=True, help="one of the above")
    parser.add_argument("--out", required=True, metavar="PATH", help="the new file, or the folder for format timm")
    parser.add_argument("--plain", action="store_true", help="leave the network's prompt off")
    for name, meaning in _options().items():
        parser.add_argument(f"--{name}", help=meaning)
    return parser


def _options() -> dict[str, str]:
    """The options of all formats, each with its meaning."""
    options: dict[str, str] = {}
    for each in exports.FORMATS.values():
        for option in each.options:
            choice = f"format {each.name}: {option.meaning}: {', '.join(option.allowed)}"
            options[option.name] = "; ".join(filter(None, (options.get(option.name), choice)))
    return options


def _run(parsed: argparse.Namespace) -> None:
    options = {name: getattr(parsed, name) for name in _options() if getattr(parsed, name) is not None}
    source, path = files.user_path(parsed.network, "NETWORK"), files.user_path(parsed.out, "--out")
    exports.check(path, format=parsed.format, **options)
    startup.prepare()
    classifier = deploy.load(source, model=parsed.model)
    classifier = classifier.without_prompt() if parsed.plain else classifier
    exported = deploy.export(classifier, path, format=parsed.format, **options)
    print(f"{printable(str(path))}: {exported.bytes:,} bytes; {exported.difference}")
