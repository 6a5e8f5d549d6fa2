"""How far roundings alone move each loss of the golden run: `python -m tests.golden.spread` writes spread.json.

Two programs that do the same sums in another order differ by about 1e-6 in a layer's output. So the run is made again
and again with the same scores and with weights that are off by 1e-6 of themselves, at random, and the losses' standard
deviations are kept.
"""

import dataclasses
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tests import test_golden_run as golden

RUNS, NOISE = 24, 1e-6


def losses(variables, seed):
    """Both stages' losses, [stage, iteration, pass], from weights perturbed by `seed`."""
    rng = np.random.default_rng(seed)

    def perturb(x):
        return x * jnp.asarray(1 + NOISE * rng.standard_normal(x.shape), jnp.float32)

    scores, pruned, dense = golden.begin(variables)
    dense = dataclasses.replace(dense, weights=jax.tree.map(perturb, dense.weights))
    pruned_rows, stage, state = golden.prune(scores, pruned, dense)
    retrained_rows, _, _ = golden.retrain(stage.subnetwork(state))
    return [[[row["loss_a"], row["loss_b"]] for row in rows] for rows in (pruned_rows, retrained_rows)]


def main():
    with tempfile.TemporaryDirectory() as folder:
        variables = golden.load(Path(folder))
    deviations = np.std([losses(variables, seed) for seed in range(RUNS)], axis=0, ddof=1)
    spread = {
        stage: [{"loss_a": round(a, 6), "loss_b": round(b, 6)} for a, b in rows]
        for stage, rows in zip(("prune", "retrain"), deviations.tolist(), strict=True)
    }
    (golden.FOLDER / "spread.json").write_text(json.dumps(spread, indent=1) + "\n")


if __name__ == "__main__":
    main()
