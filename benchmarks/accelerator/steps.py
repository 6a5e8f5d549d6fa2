"""Training steps, beside the same step of the dense network and of PyTorch."""

import concurrent.futures
import dataclasses
import functools
import gc
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import measure, step
from benchmarks.accelerator import machine, sizes
from benchmarks.accelerator.rows import Compared, Row, attempt, tried
from benchmarks.vs_torch import Sizes, operations

# With TF32 and bfloat16 the first losses agree to this share.
_TOLERANCE = 2e-2


def rows(*, tiny: bool, model: str, dtype: str, names: Sequence[str], compiled: bool = False) -> Iterator[Row]:
    """The part.

    Args:
      tiny: whether to rehearse.
      model: the network's name.
      dtype: the computation's dtype.
      names: names in `benchmarks.step.CASES`, the dense step first.
      compiled: whether PyTorch's step is compiled.
    """
    chosen, names = sizes.of(model, dtype, tiny=tiny), names[:2] if tiny else names
    caption = f"{chosen.model}, {chosen.image_size} px, batch {chosen.batch}, {dtype}"
    # In a rehearsal everything but the compiling itself, for which a CPU takes minutes.
    backend = ("aot_eager" if tiny else "inductor") if compiled else None
    variables = step.make_variables(chosen.model, chosen.image_size)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        # They compile at the same time, before any is timed.
        cases = {name: pool.submit(step.Case, name, variables, **dataclasses.asdict(chosen)) for name in names}
    table = Compared(names[0])
    for name in names:
        row = functools.partial(_row, cases.pop(name).result, table, name, chosen, variables, backend)
        yield tried(caption, {"step": name}, row)
        gc.collect()
    if compiled:
        yield Row(caption, "PyTorch's loss is compiled by `torch.compile`.")


def _row(
    made: Callable[[], step.Case],
    table: Compared,
    name: str,
    chosen: Sizes,
    variables: Any,
    backend: str | None,
) -> dict[str, Any]:
    case = made()
    # The first losses are compared: later ones differ, because rounding decides the sign of some of Adam's updates.
    losses = step.losses(case())
    seconds = measure.paced({name: case}, goes=3, least=0.5)[name]
    a_pass, rate = seconds / case.passes, case.passes * chosen.batch * operations(chosen) / seconds
    ours = {
        "ms": 1e3 * seconds,
        **table.columns(name, a_pass, lambda dense: {"as dense": a_pass / dense}),
        "images/s": chosen.batch / seconds,
        "TFLOP/s": rate / 1e12,
        "of peak, %": machine.share_of_peak(rate, chosen.dtype),
        "compiled, MB": case.bytes() / 1e6,
        "most seen so far, MB": machine.most_used(),
        "loss": losses[0],
    }
    if not importlib.util.find_spec("torch"):
        return ours
    theirs = attempt(functools.partial(_theirs, name, chosen, variables, backend, losses))
    ratio = {"PyTorch / ours": theirs["PyTorch, ms"] / ours["ms"]} if "PyTorch, ms" in theirs else {}
    return {**ours, **theirs, **ratio}


def _theirs(name: str, chosen: Sizes, variables: Any, backend: str | None, losses: list[float]) -> dict[str, Any]:
    from benchmarks.torch_step import TorchCase

    case = TorchCase(name, variables, **dataclasses.asdict(chosen), backend=backend)
    first = [loss.item() for loss in case()]
    np.testing.assert_allclose(losses, first, rtol=_TOLERANCE, err_msg="the losses of ours and PyTorch's differ")
    seconds = measure.paced({name: case}, goes=3, least=0.5)[name]
    most = case.bytes()
    return {"PyTorch, ms": 1e3 * seconds, "PyTorch, MB": most and most / 1e6, "PyTorch's loss": first[0]}
