"""What the machine is, and the two rates that nothing on it can exceed: of matrix products and of memory."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from benchmarks import measure
from benchmarks.accelerator.rows import Row, tried


@dataclasses.dataclass(frozen=True)
class Peak:
    """What a data sheet promises: operations a second by dtype (dense), and bytes a second from and to memory."""

    bfloat16: float
    float32: float
    memory: float


# For float32 it is the rate of tf32 on GPUs, which is what JAX and PyTorch use here.
_PEAKS = {
    "H200": Peak(989e12, 495e12, 4.8e12),
    "H100": Peak(989e12, 495e12, 3.35e12),
    "A100": Peak(312e12, 156e12, 2.0e12),
}


def peak() -> Peak | None:
    """The data sheet's rates of this device, if they are known."""
    kind = jax.devices()[0].device_kind
    return next((rates for name, rates in _PEAKS.items() if name in kind), None)


def share_of_peak(rate: float, kind: str) -> float | None:
    """What percentage of the data sheet's rate a rate is, if that is known.

    Args:
      rate: operations or bytes a second.
      kind: a field of `Peak`.
    """
    best = peak()
    return 100 * rate / getattr(best, kind) if best else None


def memory() -> int | None:
    """The bytes of memory that JAX may use on the device, if it tells."""
    return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")


def most_used() -> float | None:
    """The most megabytes of device memory that this process has used at a time, if the device tells."""
    used = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return used and used / 1e6


def rows(*, tiny: bool) -> Iterator[Row]:
    """The part."""
    yield from (Row("Facts", {"fact": name, "value": str(value)}) for name, value in measure.facts().items())
    limit = memory()
    yield Row("Facts", {"fact": "memory for JAX, GB", "value": f"{limit / 1e9:.1f}" if limit else "not told"})
    for dtype in ("bfloat16", "float32"):
        side = 256 if tiny else 8192
        yield tried(
            "Rates", {"what": f"{side} x {side} matrix product, {dtype}"}, functools.partial(_product, side, dtype)
        )
    yield tried("Rates", {"what": "copy, bytes read and written"}, functools.partial(_copy, 1 << (16 if tiny else 30)))


def _product(side: int, dtype: str) -> dict[str, float | None]:
    a, b = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2))
    seconds = measure.paced({"product": functools.partial(jax.jit(jnp.matmul), a, b)})["product"]
    return _rate(2 * side**3 / seconds, dtype)


def _copy(size: int) -> dict[str, float | None]:
    source = jax.random.normal(jax.random.key(0), (size // 4,))
    copied = jax.jit(lambda x: x + 1)
    seconds = measure.paced({"copy": lambda: copied(source)})["copy"]
    return _rate(2 * size / seconds, "memory")


def _rate(rate: float, kind: str) -> dict[str, float | None]:
    return {"T a second": rate / 1e12, "of the data sheet, %": share_of_peak(rate, kind)}
