"""Whether the accelerator's answers are right, compared with NumPy, with golden logits and with the CPU."""

import concurrent.futures
import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import selection, step
from benchmarks.accelerator import sizes
from benchmarks.accelerator.rows import Row, tried
from benchmarks.accelerator.running import ROOT
from vpns_jax import models, sparsity
from vpns_jax.training.checkpoints import Checkpoints

PyTree = Any

GOLDEN = ROOT / "tests" / "golden"
# Of the logits' standard deviation, as in tests/models/test_golden.py.
_GOLDEN_TOLERANCE = 1e-4
# A step in float32 at the highest precision, with sums in another order.
_STEP_TOLERANCE = 1e-3
_STEPS = ("dense", "prune (VPNs)", "prune (VPNs, reference)", "retrain, masked, prompt")


def rows(*, tiny: bool) -> Iterator[Row]:
    """The part."""
    for name, scores in _scores(tiny=tiny).items():
        yield tried("Selection is NumPy's, bit for bit", {"scores": name}, functools.partial(_selection, scores))
    for case in ("resnet18@96",) if tiny else ("resnet18@224", "resnet50@224", "vit_tiny_patch16_224@224"):
        yield tried("Logits are those of PyTorch (tests/golden)", {"network": case}, functools.partial(_golden, case))
    model = "resnet18"
    chosen = dataclasses.replace(sizes.of(model, "float32", tiny=True), batch=16)
    names = _STEPS[:2] if tiny else _STEPS
    with jax.default_matmul_precision("highest"), concurrent.futures.ThreadPoolExecutor(4) as pool:
        made = {name: pool.submit(_both, name, chosen) for name in names}
        for name, pair in made.items():
            caption = "Two steps of a small ResNet in float32 are the CPU's"
            yield tried(caption, {"step": name}, functools.partial(_waited, pair.result))
        yield tried("Checkpoint and resume", {"step": names[1]}, lambda: _resumed(names[1], chosen))


def _scores(*, tiny: bool) -> dict[str, list[np.ndarray]]:
    rng, size = np.random.default_rng(1), 1000 if tiny else 1 << 20
    drawn = np.abs(rng.standard_normal((size // 100, 100), np.float32))
    few = rng.integers(0, 4, (size // 64, 64)).astype(np.float32)
    shapes = [(3, 3, 8, 16), (16, 10), (7,)] if tiny else selection.TREES["1.3M"][1]()
    return {
        "a third of ResNet-18": selection.draw(shapes),
        "four values": [few, few[:3]],
        "subnormal numbers and infinities": [drawn * np.float32(1e-41), np.array([np.inf, 0, 1], np.float32)],
    }


def _selection(scores: list[np.ndarray]) -> dict[str, Any]:
    flat = np.concatenate([leaf.ravel() for leaf in scores])
    k = sparsity.pruned_count(scores, selection.DENSITY)
    functions = {name: ours for name, ours in selection.ways(scores).items() if name != selection.READ}
    selection.check({name: function() for name, function in functions.items()}, scores)
    topk_mask = jax.jit(sparsity.topk_mask, static_argnums=1)
    mask = np.concatenate([np.ravel(leaf) for leaf in topk_mask(scores, selection.DENSITY)])
    tau = np.partition(flat, k - 1)[k - 1]
    right = mask[flat > tau].all() and not mask[flat < tau].any() and mask.sum() == flat.size - k
    with jax.default_device(jax.devices("cpu")[0]):
        here = topk_mask(scores, selection.DENSITY)
    same = np.array_equal(mask, np.concatenate([np.ravel(leaf) for leaf in here]))
    return {"ways": len(functions), "mask": _verdict(bool(right)), "ties as on the CPU": _verdict(same)}


def _golden(case: str) -> dict[str, Any]:
    from tests.golden import recipe

    name, side = case.split("@")
    facts = json.loads((GOLDEN / "logits.json").read_text())
    shapes = facts[case if case in facts else f"{name}@224"]["state_dict"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.safetensors")
        models.save_safetensors(path, {key: recipe.torch_tensor(key, tuple(shape)) for key, shape in shapes.items()})
        variables = models.load_pretrained(name, path)
    mean, std = models.normalization(name)
    images = (recipe.logit_images(int(side)) / np.float32(255) - np.array(mean, np.float32)) / np.array(std, np.float32)
    with np.load(GOLDEN / "logits.npz") as golden:
        expected = golden[case]
    errors = {}
    for precision in ("highest", "default"):
        with jax.default_matmul_precision(precision):
            logits = jax.jit(models.create(name).apply)(variables, images)
        errors[precision] = float(np.abs(logits - expected).max() / expected.std())
    return {
        "error, highest precision": f"{errors['highest']:.1e}",
        "error, default precision": f"{errors['default']:.1e}",
        "right": _verdict(errors["highest"] <= _GOLDEN_TOLERANCE),
    }


def _both(name: str, chosen: sizes.Sizes) -> tuple[PyTree, PyTree]:
    """Two steps on the accelerator and on the CPU, from the same state."""
    cpu = jax.devices("cpu")[0]
    with jax.default_matmul_precision("highest"):
        with jax.default_device(cpu):
            there = _two_steps(name, chosen)
        return _two_steps(name, chosen), there


def _waited(both: Callable[[], tuple[PyTree, PyTree]]) -> dict[str, Any]:
    return _compare(*both())


def _two_steps(name: str, chosen: sizes.Sizes, between: Callable[[Any], Any] = lambda state: state) -> PyTree:
    """The losses of two steps, and what was learned."""
    stage, state = _begin(name, chosen)
    frozen, state = state.frozen, dataclasses.replace(state, frozen={})
    batches = (step.make_batch(chosen.batch, chosen.image_size),) * len(stage.passes)
    advance, losses = jax.jit(step.iteration, static_argnums=0), []
    for _ in range(2):
        state, metrics = advance(stage, between(state), frozen, batches, jax.random.key(0))
        losses += [metric.loss.compute() for metric in metrics]
    return jax.device_get((losses, state.learned, state.batch_stats))


@functools.cache
def _drawn(model: str, image_size: int) -> Mapping[str, Any]:
    with jax.default_device(jax.devices("cpu")[0]):
        return jax.device_get(step.make_variables(model, image_size))


def _begin(name: str, chosen: sizes.Sizes) -> tuple[Any, Any]:
    variables = jax.tree.map(jnp.asarray, _drawn(chosen.model, chosen.image_size))
    return step.start(name, variables, **dataclasses.asdict(chosen))


def _compare(ours: PyTree, there: PyTree) -> dict[str, Any]:
    losses, expected = np.array(ours[0]), np.array(there[0])
    worst = float(np.abs(losses / expected - 1).max())
    pairs = list(zip(jax.tree.leaves(ours[1]), jax.tree.leaves(there[1]), strict=True))
    # Where a gradient vanishes, rounding decides the sign of Adam's update, so single elements may differ.
    apart = sum(int((np.abs(a - b) > _STEP_TOLERANCE * np.abs(b).max()).sum()) for a, b in pairs if a.size)
    return {
        "losses differ by": f"{worst:.1e}",
        "learned numbers apart": f"{apart} of {sum(a.size for a, _ in pairs)}",
        "right": _verdict(worst <= _STEP_TOLERANCE),
    }


def _resumed(name: str, chosen: sizes.Sizes) -> dict[str, Any]:
    """Whether two steps are the same with a checkpoint before each, which is read back to the device."""
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder, "stage"), "benchmark") as checkpoints:

        def through_a_file(state: Any) -> Any:
            checkpoints.save(checkpoints.newest_number() + 1, state)
            _, read = checkpoints.newest(state) or (0, None)
            for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(read), strict=True):
                if before.devices() != after.devices() or not np.array_equal(before, after):
                    raise AssertionError("an array came back changed, or on another device")
            return read

        resumed = _two_steps(name, chosen, through_a_file)
    return {"arrays read back": "right", **_compare(resumed, _two_steps(name, chosen))}


def _verdict(right: bool) -> str:
    return "right" if right else "**WRONG**"
