"""A finished cell's entry in the summary: accuracies, densities, costs."""

import dataclasses
import importlib.metadata
import platform
from typing import Any

import jax

from vpns_jax import models, sparsity
from vpns_jax.analysis import flops
from vpns_jax.analysis.confusion import Confusion
from vpns_jax.analysis.density import density_report
from vpns_jax.errors import UserError
from vpns_jax.experiment import target
from vpns_jax.experiment.plan import CellPlan
from vpns_jax.experiment.workdir import Workdir
from vpns_jax.parallel import sharding
from vpns_jax.training.batches import Split
from vpns_jax.training.evaluation import evaluate
from vpns_jax.training.network import Network, Subnetwork

PyTree = Any
Numbers = dict[str, float | None]
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "vpns_jax")


def versions() -> dict[str, str]:
    """Lists the versions of Python and of the packages on which numbers depend.

    Returns:
      Versions by name.
    """
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}


@dataclasses.dataclass(frozen=True)
class Tested:
    """The metrics of a network on the test split, "plain" and "prompted".

    Attributes:
      accuracy: shares of correct predictions.
      calibration_error: expected calibration errors.
      confusion: which classes are taken for which; None where the network has no prompt.
    """

    accuracy: Numbers
    calibration_error: Numbers
    confusion: dict[str, Confusion | None]

    def by_class(self) -> dict[str, Any]:
        """What the accuracy does not say.

        Returns:
          Entries of the summary: the counts, the mean over classes of the share that is recognized, and the accuracy of
          always answering with the most frequent class.
        """
        known = {way: confusion for way, confusion in self.confusion.items() if confusion is not None}
        nothing = dict.fromkeys(self.confusion)
        return {
            "confusion": nothing | {way: confusion.to_json() for way, confusion in known.items()},
            "mean_class_accuracy": nothing | {way: confusion.mean_class_accuracy for way, confusion in known.items()},
            "majority_class": known["plain"].majority,
        }


def evaluated(network: Network, subnetwork: Subnetwork, test: Split, batch_size: int) -> Tested:
    """Evaluates a network on the test split.

    Args:
      network: the static half.
      subnetwork: the arrays.
      test: the test split.
      batch_size: images in a batch.

    Returns:
      The metrics.
    """
    seen = evaluate(network, subnetwork, test, batch_size=batch_size, confusion=True)
    counts = seen.both("confusion")
    return Tested(
        accuracy=_numbers(seen.both("accuracy")),
        calibration_error=_numbers(seen.both("calibration_error")),
        confusion={way: None if x is None else Confusion(sharding.to_host(x)) for way, x in counts.items()},
    )


@dataclasses.dataclass(frozen=True)
class Rows:
    """A cell's rows of metrics.jsonl.

    Attributes:
      rows: all rows, in order.
      best_epoch: the epoch of the last stage with the best validation accuracy.
      folder: the run's folder, for errors.
      cell: the cell's name, for errors.
    """

    rows: list[dict[str, Any]]
    best_epoch: int
    folder: Workdir
    cell: str

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages in order; the last one is evaluated."""
        return tuple(dict.fromkeys(row["stage"] for row in self.rows))

    def validation(self) -> dict[str, Any]:
        """Selects the validation accuracies of the last and the best epoch of the last stage.

        Returns:
          Accuracies "plain" and "prompted" of the "last" and the "best" epoch.

        Raises:
          UserError: the row of the best epoch is missing.
        """
        evaluated_rows = [row for row in self.rows if row["stage"] in self.stages[-1:]]
        best = next((row for row in evaluated_rows if row["epoch"] == self.best_epoch), None)
        if best is None:
            raise UserError(
                f"{self.folder.log.path} has lost the row of {self.cell}, epoch {self.best_epoch}; remove "
                f"{self.folder.checkpoints(self.cell)} to run the cell again"
            )
        ways = ("plain", "prompted")
        return {
            "last": {way: evaluated_rows[-1][f"val_{way}"] for way in ways},
            "best": {way: best[f"val_{way}"] for way in ways} | {"epoch": self.best_epoch},
        }

    def seconds(self) -> dict[str, dict[str, float]]:
        """Adds up the seconds of training and of compilation.

        Returns:
          Seconds by stage, for each of the two.
        """
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
    """Makes a cell's entry in the summary.

    Args:
      plan: the cell's plan.
      network: the static half of the finished network.
      mask: the mask of the best network, on the host.
      tested: the test metrics of the "last" and the "best" network.
      rows: the cell's rows.
      counts: "optimizer_steps" and "forward_passes", by stage.

    Returns:
      The entry.

    Raises:
      UserError: a row is missing.
    """
    size = network.prompt.canvas_size
    density = density_report(sparsity.counted(mask), head=models.HEAD)
    shapes = flops.kernels(network.model, image_size=size)
    of_channels = plan.method.sparse and isinstance(plan.pattern, sparsity.ChannelPattern)
    return {
        "cell": plan.cell.name,
        **dataclasses.asdict(plan.cell),
        "achieved_density": density.density,
        "density_without_head": density.density_without_head,
        "collapsed": list(density.collapsed),
        "layers": density.to_json(),
        "multiply_adds": flops.multiply_adds(shapes, density.layers, head=models.HEAD),
        **({"shrunk": target.shrunk(network.model, mask, image_size=size)} if of_channels else {}),
        "val": rows.validation(),
        "test": {which: metrics.accuracy for which, metrics in tested.items()},
        "calibration_error": tested["best"].calibration_error,
        **tested["best"].by_class(),
        **counts,
        **rows.seconds(),
    }


def target_reached(plan: CellPlan, shrunk: dict[str, dict[str, int]]) -> list[str]:
    """Describes the cost that was reached for a target.

    Args:
      plan: the cell's plan.
      shrunk: from `target.shrunk`; empty if the mask is not one of channels.

    Returns:
      A note, if there was a target.
    """
    if not isinstance(plan.pattern, sparsity.BudgetPattern) or not shrunk:
        return []
    kind = plan.pattern.target
    cost = shrunk[target.key(kind)]
    return [
        f"target {kind}:{plan.cell.density:g}: without its pruned channels the network has "
        f"{cost['shrunk'] / cost['dense']:.2%} of the dense {target.COSTS[kind]}"
    ]


def already_sparse(kept: float, nonzero: float) -> list[str]:
    """Makes a note if a mask keeps many zero weights, as in a network that was already sparse.

    Args:
      kept: the share of weights that the mask keeps.
      nonzero: the share of weights that are kept and not zero.

    Returns:
      The notes: one or none.
    """
    if nonzero >= 0.99 * kept:
        return []
    return [
        f"the mask keeps {kept:.1%} of the weights, and only {nonzero:.1%} are not zero: the network was sparse "
        "already; prune to a lower density"
    ]


def _numbers(values: dict[str, jax.Array | None]) -> Numbers:
    return {way: None if value is None else float(value) for way, value in values.items()}
