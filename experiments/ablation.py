"""Ablations: runs the cells of a config once for each variant of a single choice.

    python -m experiments.ablation --study=prompt_kind --config=configs/digits.py --workdir=runs/ablation --jobs=2

WORKDIR/STUDY.md and .csv hold accuracies and differences from the unchanged config, seed by seed. Studies of one config
may share a folder, and then share the runs of the unchanged config. Run a study again to do what is missing.
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

# A variant: the values that it changes, by dotted key.
Changes = dict[str, Any]
# The kind of prompt that does nothing.
BLANK = "none"

# The studies. Each makes its variants from a config, by name.
STUDIES: dict[str, Callable[[Config], dict[str, Changes]]] = {
    # Squares have the area of the configured frame.
    "prompt_kind": lambda config: {
        kind: prompt(config, kind, config.prompt.pad_size) for kind in KINDS if kind != BLANK
    },
    "prompt_size": lambda config: {f"{width}px": prompt(config, config.prompt.kind, width) for width in widths(config)},
    "parametrization": lambda _: {name: {"prompt.parametrization": name} for name in ("raw", "sigmoid", "tanh")},
    "stage": lambda _: {stage: {"prompt.stage": stage} for stage in ("both", "prune", "retrain")},
    "mapping": lambda _: {kind: {"mapping.kind": kind} for kind in ("frequency", "iterative", "random", "head")},
    "protocol": lambda _: {name: {"protocol": name} for name in ("paper", "reference")},
}
# Studies that change nothing for methods without a prompt, which are then not run.
OF_THE_PROMPT = ("prompt_kind", "prompt_size", "parametrization", "stage")
CONFIGURED = "configured"
# Former names of studies, accepted for one release.
FORMER = {"parametrisation": "parametrization"}

_STUDY = flags.DEFINE_string("study", None, f"The choice to vary: {', '.join(STUDIES)}.")


def main(argv: list[str]) -> int:
    """Runs the command.

    Args:
      argv: the command line, starting with the program's name.

    Returns:
      The exit code: 0, 1 if a cell failed, or 2 after an error that the user can fix.
    """

    def run() -> int:
        config, folder = cli.parse(argv)
        study = _STUDY.value or ""
        study = FORMER.get(study, study)
        check_name("study", study, tuple(STUDIES))
        line = shlex.join(["python", "-m", "experiments.ablation", *argv[1:]])
        return ablate(config, folder, line, study=study, jobs=sweep.JOBS.value, devices=sweep.DEVICES.value)

    return cli.end(run)


def prompt(config: Config, kind: str, width: int) -> Changes:
    """Makes the changes for a prompt: a frame, or a square of the same area (with its side rounded down).

    Args:
      config: the configuration.
      kind: the kind of prompt.
      width: the width of the frame, in pixels.

    Returns:
      Values by dotted key.
    """
    canvas = config.prompt.canvas_size
    sizes = {"pad_size": width, "patch_size": math.isqrt(4 * width * (canvas - width))}
    changes: Changes = {"prompt.kind": kind}
    if name := KINDS[kind].size_name:
        changes |= {f"prompt.{name}": sizes[name]}
    # The whole config is checked later, also whether the prompt fits.
    if side := KINDS[kind](canvas, sizes.get(name, 0), "raw", "hard").image_size:
        return changes | {"data.image_size": side}
    # If the configured kind has its own image size, the other kinds get images as large as the canvas.
    return changes | ({"data.image_size": canvas} if config.make_prompt().image_size else {})


def widths(config: Config) -> list[int]:
    """Lists the widths of frames of 1/14 ... 7/14 of the canvas, the paper's 16 ... 112 px of 224.

    Args:
      config: the configuration. If its prompt is a square, all widths are listed, as a square of a frame's area fits.

    Returns:
      The widths in pixels that its kind of prompt allows.
    """
    canvas, kind = config.prompt.canvas_size, KINDS[config.prompt.kind]
    most = kind.largest(canvas) if kind.size_name == "pad_size" else canvas
    rounded = (max(1, round(part * canvas / 14)) for part in range(1, 8))
    return [width for width in rounded if width <= most]


def variants(study: str, config: Config) -> dict[str, Config]:
    """Makes the config of each variant; the variant that equals the config is marked as configured.

    Args:
      study: a key of `STUDIES`.
      config: the configuration.

    Returns:
      Configurations by the names of variants.

    Raises:
      UserError: the config does not allow a variant.
    """
    if study in ("prompt_size", "parametrization") and config.prompt.kind == BLANK:
        raise UserError(f"--study={study}: config.prompt.kind is 'none', which has neither size nor parameters")
    configs = {}
    for name, changes in STUDIES[study](config).items():
        try:
            configs[name] = sweep.changed(config, changes)
        except UserError as error:
            raise UserError(f"--study={study}, variant {name}: {error}") from error
    same = [name for name, variant in configs.items() if _plain(variant) == _plain(config)]
    if not same:
        return {CONFIGURED: config} | configs
    return {f"{name} ({CONFIGURED})" if name == same[0] else name: variant for name, variant in configs.items()}


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
    """Runs the missing cells of a study, then writes and prints its table; see the module.

    Args:
      config: the configuration.
      folder: the folder of the study.
      line: the command, for reports.
      study: a key of `STUDIES`.
      jobs: the number of cells that run at a time.
      devices: CUDA_VISIBLE_DEVICES of each worker; empty to leave it alone.
      check: checks a config, in another process; None for `run.check`.
      work: runs a cell, in another process.

    Returns:
      The exit code: 0, or 1 if a cell failed.

    Raises:
      UserError: a variant cannot run, or the folder holds something else.
    """
    from vpns_jax.experiment import inputs, run
    from vpns_jax.experiment.folder_checks import check_folder
    from vpns_jax.experiment.lock import locked
    from vpns_jax.experiment.workdir import Workdir

    read = inputs.of(config)
    check_folder(folder, config, read)
    configs = variants(study, config)
    cells = [cell for cell in run.cells(config) if _answers(study, cell.method)]
    if not cells:
        raise UserError(
            f"--study={study} changes nothing for {', '.join(config.methods)}; add a method with a prompt, such as "
            "vpns or magnitude+prompt"
        )
    # The check runs in another process, because this one must not take the devices that the cells need.
    for outcome in workers.run_all(configs, check or run.check, workers=1, devices=devices):
        if outcome.error:
            raise UserError(f"--study={study}, variant {outcome.name}: {outcome.error[0]}")
    runs, arms = {}, {}
    for name, variant in configs.items():
        home = CONFIGURED if CONFIGURED in name else f"{study}-{name}"
        for cell in cells:
            arms[f"{home}-{cell.name}"] = name
            reduced = sweep.one_cell(variant, cell.method, cell.density, cell.seed)
            runs[f"{home}-{cell.name}"] = (reduced, folder / "runs" / home / cell.name, line)
    with locked(folder):
        Workdir(folder, config, read)
        code = sweep.run_cells(runs, folder, jobs=jobs, devices=devices, work=work)
        _write(sweep.finished({name: home for name, (_, home, _) in runs.items()}), arms, folder, study)
    return code


def _write(summaries: dict[str, dict[str, Any]], arms: dict[str, str], folder: Path, study: str) -> None:
    """Writes the table of all finished runs; `arms` names the variant of each run."""
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

    chosen = method(name)
    return study not in OF_THE_PROMPT or chosen.prompted or (chosen.posthoc and study != "stage")


def _plain(config: Config) -> dict[str, Any]:
    """The config as a tree, with the default parametrization filled in."""
    tree = config.to_json()
    tree["prompt"]["parametrization"] = config.make_prompt().parametrization
    return tree


if __name__ == "__main__":
    sys.exit(main(sys.argv))
