"""One choice of a config varied, everything else as it is: every cell with a prompt, or every cell, for each variant.

    python -m experiments.ablation --study=prompt_kind --config=configs/digits_sweep.py --workdir=runs/ablation --jobs=2

WORKDIR/STUDY.md and .csv hold accuracies and differences from the config as it is, seed by seed. Studies of one config
share a folder, and in it the runs of the config as it is. Run again, a study does what is missing.
"""

import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from experiments import paired, sweep, workers
from vpns_jax import cli
from vpns_jax.errors import UserError, check_name
from vpns_jax.experiment.config import Config
from vpns_jax.prompting import KINDS

# A variant: the config's keys that it changes, with dots.
Changes = dict[str, Any]
# The kind of prompt that is none.
BLANK = "none"

# Every study, and its variants of a config by name.
STUDIES: dict[str, Callable[[Config], dict[str, Changes]]] = {
    # Squares have the area of the configured frame.
    "prompt_kind": lambda config: {
        kind: prompt(config, kind, config.prompt.pad_size) for kind in KINDS if kind != BLANK
    },
    # Frames of 1/14 ... 7/14 of the canvas, which are the paper's 16 ... 112 px of 224, or squares of their areas.
    "prompt_size": lambda config: {
        f"{width}px": prompt(config, config.prompt.kind, width)
        for width in (max(1, round(part * config.prompt.canvas_size / 14)) for part in range(1, 8))
    },
    "parametrization": lambda _: {name: {"prompt.parametrization": name} for name in ("raw", "sigmoid", "tanh")},
    "stage": lambda _: {stage: {"prompt.stage": stage} for stage in ("both", "prune", "retrain")},
    "mapping": lambda _: {kind: {"mapping.kind": kind} for kind in ("frequency", "iterative", "random", "head")},
    "protocol": lambda _: {name: {"protocol": name} for name in ("paper", "reference")},
}
# Those that leave methods without a prompt as they are, which are not run then.
OF_THE_PROMPT = ("prompt_kind", "prompt_size", "parametrization", "stage")
CONFIGURED = "configured"
# Names that studies had, accepted for one release.
FORMER = {"parametrisation": "parametrization"}

_STUDY = flags.DEFINE_string("study", None, f"What is varied: {', '.join(STUDIES)}.")


def main(argv: list[str]) -> int:
    """Returns the exit code: 0, 1 if a cell failed, 2 for something that the caller can mend."""

    def run() -> int:
        config, folder = cli.parse(argv)
        study = _STUDY.value or ""
        study = FORMER.get(study, study)
        check_name("study", study, tuple(STUDIES))
        line = shlex.join(["python", "-m", "experiments.ablation", *argv[1:]])
        return ablate(config, folder, line, study=study, jobs=sweep.JOBS.value, devices=sweep.DEVICES.value)

    return cli.end(run)


def prompt(config: Config, kind: str, width: int) -> Changes:
    """A prompt of that kind: a frame of `width` pixels, or a square of as many (rounded down to whole sides)."""
    canvas = config.prompt.canvas_size
    sizes = {"pad_size": width, "patch_size": math.isqrt(4 * width * (canvas - width))}
    changes: Changes = {"prompt.kind": kind}
    if name := KINDS[kind].size_name:
        changes |= {f"prompt.{name}": sizes[name]}
    # Whether it fits is asked of the whole config, later.
    if side := KINDS[kind](canvas, sizes.get(name, 0), "raw", "hard").image_size:
        return changes | {"data.image_size": side}
    # The configured kind has images of its own size; others have them as large as the canvas.
    return changes | ({"data.image_size": canvas} if config.make_prompt().image_size else {})


def variants(study: str, config: Config) -> dict[str, Config]:
    """The config once for each variant, by name, the one as it is called so.

    Raises:
      UserError: a variant that the config does not allow.
    """
    if study in ("prompt_size", "parametrization") and config.prompt.kind == BLANK:
        raise UserError(f"--study={study}: config.prompt.kind is 'none', which has neither size nor parameters")
    found = {}
    for name, changes in STUDIES[study](config).items():
        try:
            found[name] = sweep.changed(config, changes)
        except UserError as error:
            raise UserError(f"--study={study}, variant {name}: {error}") from error
    same = [name for name, one in found.items() if _plain(one) == _plain(config)]
    if not same:
        return {CONFIGURED: config} | found
    return {f"{name} ({CONFIGURED})" if name == same[0] else name: one for name, one in found.items()}


def ablate(
    config: Config,
    folder: Path,
    line: str,
    *,
    study: str,
    jobs: int,
    devices: list[str],
    check: Callable[[Config], None] | None = None,
    work: Callable[[sweep.Run], None] = sweep.run_one,
) -> int:
    """Runs what is missing of a study under `folder`, then writes and prints its table; see the module."""
    from vpns_jax.experiment import inputs, run
    from vpns_jax.experiment.workdir import Workdir, check_folder, locked

    read = inputs.of(config)
    check_folder(folder, config, read)
    found = variants(study, config)
    cells = [cell for cell in run.cells(config) if _answers(study, cell.method)]
    if not cells:
        raise UserError(
            f"--study={study} changes nothing for {', '.join(config.methods)}; add a method with a prompt, such as "
            "vpns or magnitude+prompt"
        )
    # In a process of its own: this one must not lay hands on the devices that the cells need.
    for outcome in workers.run_all(found, check or run.check, workers=1, devices=devices):
        if outcome.error:
            raise UserError(f"--study={study}, variant {outcome.name}: {outcome.error[0]}")
    runs, arms = {}, {}
    for name, one in found.items():
        home = CONFIGURED if CONFIGURED in name else f"{study}-{name}"
        for cell in cells:
            arms[f"{home}-{cell.name}"] = name
            reduced = sweep.one_cell(one, cell.method, cell.density, cell.seed)
            runs[f"{home}-{cell.name}"] = (reduced, folder / "runs" / home / cell.name, line)
    with locked(folder):
        Workdir(folder, config, read)
        code = sweep.run_cells(runs, folder, jobs=jobs, devices=devices, work=work)
        _write(sweep.finished({name: home for name, (_, home, _) in runs.items()}), arms, folder, study)
    return code


def _write(summaries: dict[str, dict[str, Any]], arms: dict[str, str], folder: Path, study: str) -> None:
    """The table of all finished runs; `arms` says which variant each is of."""
    (configured,) = {name for name in arms.values() if CONFIGURED in name}
    cells, references = [], {}
    for run, summary in summaries.items():
        for cell in summary["cells"]:
            label = f"{cell['method']}, {arms[run]}"
            cells.append(cell | {"method": label})
            references[label] = f"{cell['method']}, {configured}"
    if cells:
        paired.write(paired.paired_table(cells, references, "configured"), folder, study)


def _answers(study: str, name: str) -> bool:
    """Whether a study changes anything for a method."""
    from vpns_jax.pruners import method

    found = method(name)
    return study not in OF_THE_PROMPT or found.prompted or (found.posthoc and study != "stage")


def _plain(config: Config) -> dict[str, Any]:
    """The config with what it leaves open filled in."""
    tree = config.to_json()
    tree["prompt"]["parametrization"] = config.make_prompt().parametrization
    return tree


if __name__ == "__main__":
    sys.exit(main(sys.argv))
