"""A finished cell's entry in the summary: accuracies, densities, costs."""

import dataclasses
import importlib.metadata
import platform
from typing import Any

import jax

from vpns_jax import models
from vpns_jax.analysis import flops
from vpns_jax.analysis.density import density_report
from vpns_jax.errors import UserError
from vpns_jax.experiment.plan import CellPlan
from vpns_jax.experiment.workdir import Workdir
from vpns_jax.training.batches import Split
from vpns_jax.training.evaluation import evaluate
from vpns_jax.training.network import Network, Subnetwork

PyTree = Any
Numbers = dict[str, float | None]
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "vpns_jax")


def versions() -> dict[str, str]:
    """Of Python, and of the packages that decide what numbers come out."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}


@dataclasses.dataclass(frozen=True)
class Tested:
    """What the test split says of a network, "plain" and "prompted"."""

    accuracy: Numbers
    calibration_error: Numbers


def evaluated(network: Network, subnetwork: Subnetwork, test: Split, batch_size: int) -> Tested:
    """A network on the test split."""
    seen = evaluate(network, subnetwork, test, batch_size=batch_size)
    return Tested(_numbers(seen.both("accuracy")), _numbers(seen.both("calibration_error")))


@dataclasses.dataclass(frozen=True)
class Rows:
    """A cell's rows of metrics.jsonl.

    Attributes:
      rows: all of them, in order.
      best_epoch: the epoch of the last stage that is best on validation.
      folder: of the run; cell: its name. Both for what is said where a row is gone.
    """

    rows: list[dict[str, Any]]
    best_epoch: int
    folder: Workdir
    cell: str

    @property
    def stages(self) -> tuple[str, ...]:
        """In order: the last is what is judged."""
        return tuple(dict.fromkeys(row["stage"] for row in self.rows))

    def validation(self) -> dict[str, Any]:
        """Accuracies on validation of the last stage's last and best epochs.

        Raises:
          UserError: the row of the best epoch is gone.
        """
        judged = [row for row in self.rows if row["stage"] in self.stages[-1:]]
        best = next((row for row in judged if row["epoch"] == self.best_epoch), None)
        if best is None:
            raise UserError(
                f"{self.folder.log.path} has lost the row of {self.cell}, epoch {self.best_epoch}; remove "
                f"{self.folder.checkpoints(self.cell)} to run the cell anew"
            )
        ways = ("plain", "prompted")
        return {
            "last": {way: judged[-1][f"val_{way}"] for way in ways},
            "best": {way: best[f"val_{way}"] for way in ways} | {"epoch": self.best_epoch},
        }

    def seconds(self) -> dict[str, dict[str, float]]:
        """Of training, and of compilation, by stage."""
        return {
            kind: {stage: sum(row[kind] for row in self.rows if row["stage"] == stage) for stage in self.stages}
            for kind in ("seconds", "compile_seconds")
        }


def entry(
    plan: CellPlan,
    network: Network,
    mask: PyTree,
    tested: dict[str, Tested],
    rows: Rows,
    counts: dict[str, dict[str, int]],
) -> dict[str, Any]:
    """A cell's entry in the summary.

    Args:
      plan: of the cell.
      network: the static half of the finished network.
      mask: of the best network, on the host.
      tested: the "last" and the "best" network on the test split.
      rows: of the cell.
      counts: "optimizer_steps" and "forward_passes", by stage.
    """
    density = density_report(mask, head=models.HEAD)
    shapes = flops.kernels(network.model, image_size=network.prompt.canvas_size)
    return {
        "cell": plan.cell.name,
        **dataclasses.asdict(plan.cell),
        "achieved_density": density.density,
        "density_without_head": density.density_without_head,
        "collapsed": list(density.collapsed),
        "layers": density.to_json()["layers"],
        "multiply_adds": flops.multiply_adds(shapes, density.layers, head=models.HEAD),
        "val": rows.validation(),
        "test": {which: one.accuracy for which, one in tested.items()},
        "calibration_error": tested["best"].calibration_error,
        **counts,
        **rows.seconds(),
    }


def already_sparse(kept: float, nonzero: float) -> list[str]:
    """What to say where a mask keeps weights that are zero, as those of a network that was pruned before are.

    Args:
      kept: the share of weights that the mask keeps.
      nonzero: the share that is kept and not zero.
    """
    if nonzero >= 0.99 * kept:
        return []
    return [
        f"the mask keeps {kept:.1%} of the weights, and only {nonzero:.1%} are not zero: the network was sparse "
        "already; prune to a lower density"
    ]


def _numbers(values: dict[str, jax.Array | None]) -> Numbers:
    return {way: None if value is None else float(value) for way, value in values.items()}
