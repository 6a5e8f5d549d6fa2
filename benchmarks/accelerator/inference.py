"""The time of a batch of images in a dense, a masked and a shrunk network."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import deploy, measure
from benchmarks.accelerator import sizes
from benchmarks.accelerator.rows import Compared, Row, tried
from vpns_jax import sparsity
from vpns_jax.deploy import Classifier
from vpns_jax.training import network as networks

SHARE = 0.5


def rows(*, tiny: bool, model: str) -> Iterator[Row]:
    """The part."""
    side = sizes.of(model, "bfloat16", tiny=tiny).image_size
    # Weights are drawn and masks chosen on the host: that is many small programs, which are not measured.
    with jax.default_device(jax.devices("cpu")[0]):
        compared = deploy.networks(model, side, SHARE)
    for dtype in ("bfloat16",) if tiny else ("bfloat16", "float32"):
        for batch in (1, 4) if tiny else (32, 1, 256):
            caption = f"{model}, {side} px, {dtype}, batch {batch}"
            yield from _table(compared, caption, side, batch, dtype)
            yield Row(caption, "From uint8 pixels on the device to logits.")


def _table(compared: dict[str, Classifier], caption: str, side: int, batch: int, dtype: str) -> Iterator[Row]:
    table = Compared(next(iter(compared)))

    # They compile at the same time, before any is timed.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        compiled = {name: pool.submit(_compiled, each, side, batch, dtype) for name, each in compared.items()}

    def measured(name: str) -> dict[str, float]:
        seconds = measure.paced({"it": compiled[name].result()})["it"]
        ratio = table.columns(name, seconds, lambda dense: {"times as fast": dense / seconds})
        return {"ms": 1e3 * seconds, "images/s": batch / seconds, **ratio}

    for name in compared:
        yield tried(caption, {"network": name}, functools.partial(measured, name))


def _compiled(each: Classifier, side: int, batch: int, dtype: str) -> Callable[[], Any]:
    network: Any = dataclasses.replace(each.network, model=each.network.model.clone(dtype=jnp.dtype(dtype)))
    weights = sparsity.apply(each.subnetwork.weights, each.subnetwork.mask)
    arrays = jax.device_put(dataclasses.replace(each.subnetwork, weights=weights, mask={}), jax.devices()[0])
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8))
    predict = jax.jit(lambda arrays, images: networks.predict(network, arrays, images, prompted=True))
    return functools.partial(predict.lower(arrays, images).compile(), arrays, images)
