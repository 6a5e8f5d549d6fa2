"""Checkpoints of one stage: the newest is always kept, beside the best on validation.

Orbax writes them and makes each save atomic. What it does not notice is bytes overwritten on disk, so every
checkpoint carries a digest of its arrays, checked before anything is trained.
"""

import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vpns_jax.errors import UserError
from vpns_jax.parallel import sharding

PyTree = Any

_METRIC = "selection"
# Up to so many elements an array is packed with others.
_SMALL = 2**18


class Checkpoints:
    """The checkpoints of one stage of one run, by number: epochs, or steps. Use it in `with`, or `close` it."""

    def __init__(self, directory: Path, fingerprint: str, *, keep_best: bool = True) -> None:
        """Opens or starts a folder of checkpoints.

        Args:
          directory: made if it is not there.
          fingerprint: names the configuration; a checkpoint of another one is refused.
          keep_best: whether the best is kept beside the newest; without, accuracies play no part.
        """
        self.keeps_best = keep_best
        self._directory = directory.absolute()
        self._fingerprint = fingerprint
        kept: list[preservation_policy.PreservationPolicy] = [preservation_policy.LatestN(1)]
        if keep_best:
            kept.append(preservation_policy.BestN(get_metric_fn=lambda metrics: metrics[_METRIC], n=1))
        options = ocp.CheckpointManagerOptions(
            best_fn=(lambda metrics: metrics[_METRIC]) if keep_best else None,
            preservation_policy=preservation_policy.AnyPreservationPolicy(kept),
            enable_async_checkpointing=False,
        )
        with self._readable():
            self._manager = ocp.CheckpointManager(self._directory, options=options)

    def save(self, epoch: int, tree: PyTree, *, accuracy: float | None = None) -> None:
        """Writes `tree` as it is after `epoch` epochs, with its accuracy on validation."""
        arrays = _named(tree)
        packed = _pack(arrays)
        before = self.best_accuracy()
        # Of equal accuracies the earlier epoch is the better one.
        best = epoch if accuracy is not None and (before is None or accuracy > before) else self._best_epoch()
        meta = {"fingerprint": self._fingerprint, "layout": _layout(packed), "digest": digest(arrays), "best": best}
        saved = self._manager.save(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(packed),
                meta=ocp.args.JsonSave(meta),
            ),
            metrics=None if accuracy is None else {_METRIC: accuracy - 1e-9 * epoch, "accuracy": accuracy},
        )
        if not saved:
            raise RuntimeError(f"checkpoint of epoch {epoch} was not saved: a later one is there")

    def newest_epoch(self) -> int:
        """The newest epoch there is a checkpoint of; 0 if there is none yet."""
        return self._manager.latest_step() or 0

    def newest(self, like: PyTree) -> tuple[int, PyTree] | None:
        """The newest epoch and its tree, or None if there is none yet; see `restore`.

        The best one is read too: that it is damaged or gone should be known before training goes on.
        """
        epoch, best = self._manager.latest_step(), self._best_epoch()
        if epoch is None:
            return None
        if self.keeps_best and self._meta(epoch).get("best") != best:
            raise UserError(
                f"checkpoint {self._directory / str(self._meta(epoch).get('best'))}, the best so far, is gone; remove "
                f"{self._directory} to run the stage anew"
            )
        if best not in (None, epoch):
            self.restore(best, like)
        return epoch, self.restore(epoch, like)

    def best(self, like: PyTree) -> tuple[int, PyTree]:
        """The epoch that is best on validation, the earliest of equals, and its tree; see `restore`."""
        epoch = self._best_epoch()
        if epoch is None:
            raise ValueError(f"no checkpoint has been saved under {self._directory}")
        return epoch, self.restore(epoch, like)

    def best_accuracy(self) -> float | None:
        """The accuracy on validation of the best checkpoint; None if there is none yet."""
        epoch = self._best_epoch()
        if epoch is None:
            return None
        with self._readable(self._directory / str(epoch)):
            return self._manager.metrics(epoch)["accuracy"]

    def _best_epoch(self) -> int | None:
        """The best epoch; None if there is none yet, or none is kept for being best."""
        if not self.keeps_best:
            return None
        with self._readable():
            return self._manager.best_step()

    def restore(self, epoch: int, like: PyTree) -> PyTree:
        """Reads a checkpoint back, bit for bit.

        Args:
          epoch: which.
          like: a tree of arrays of the same structure, shapes and dtypes; results are placed as its arrays are.

        Raises:
          UserError: it is of another configuration, cannot be read, or is not what was saved.
        """
        where, meta = self._directory / str(epoch), self._meta(epoch)
        if meta.get("fingerprint") != self._fingerprint:
            raise UserError(f"checkpoint {where} was made by another config; choose another --workdir")
        arrays = _named(like)
        target = _packed_like(arrays)
        # Orbax would notice, but leave its other reads hanging.
        if meta.get("layout") != _layout(target):
            raise UserError(
                f"checkpoint {where} holds other arrays than this version expects; choose another --workdir"
            )
        with self._readable(where):
            saved = self._manager.restore(epoch, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))
        found = _unpack(saved["state"], arrays)
        if digest(found) != meta["digest"]:
            raise UserError(f"checkpoint {where} is damaged: its contents do not match their checksum; remove it")
        return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in arrays])

    def _meta(self, epoch: int) -> dict[str, Any]:
        with self._readable(self._directory / str(epoch)):
            return self._manager.restore(epoch, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _readable(self, where: Path | None = None) -> Iterator[None]:
        """Turns whatever the storage raises on damaged files into one line."""
        try:
            with warnings.catch_warnings():
                # Orbax warns of its own defaults; the sharding is given with each array.
                warnings.simplefilter("ignore")
                yield
        except Exception as error:
            reason = str(error).strip().splitlines()
            text = reason[0][:200] if reason else type(error).__name__
            raise UserError(f"checkpoint {where or self._directory} is damaged: {text}; remove it") from error


def digest(arrays: dict[str, Any]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names, however the arrays are laid out.

    One array after the other comes to the host, whole.
    """
    total = hashlib.sha256()
    for name in sorted(arrays):
        value = np.asarray(sharding.to_host(arrays[name]))
        total.update(f"{name} {value.dtype} {value.shape}\n".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def _named(tree: PyTree) -> dict[str, Any]:
    """The tree's arrays by path, in the tree's own order; paths do not depend on the types of its containers."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _pack(arrays: dict[str, Any]) -> dict[str, Any]:
    """Small arrays end to end in one for each dtype, large ones as they are, by position.

    A checkpoint takes time for each array: packed, one of 200 small arrays is written in a tenth of it.
    """
    packed: dict[str, Any] = {}
    for dtype, names in _small(arrays).items():
        together = np.concatenate([np.ravel(x) for x in sharding.to_host([arrays[name] for name in names])])
        packed[f"small_{dtype}"] = sharding.put(together, _everywhere())
    return packed | {f"large_{i}": arrays[name] for i, name in enumerate(_large(arrays))}


def _packed_like(arrays: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and places for reading what `_pack` made: large arrays go straight to where `arrays` has them."""
    target = {}
    for dtype, names in _small(arrays).items():
        shape = (sum(arrays[name].size for name in names),)
        target[f"small_{dtype}"] = jax.ShapeDtypeStruct(shape, arrays[names[0]].dtype, sharding=_everywhere())
    for i, name in enumerate(_large(arrays)):
        x = arrays[name]
        target[f"large_{i}"] = jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    return target


def _everywhere() -> jax.sharding.Sharding:
    """Where packed arrays are while they are written and read: a device of this process or, of several, all devices."""
    if jax.process_count() == 1:
        return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return NamedSharding(jax.sharding.get_mesh(), sharding.WHOLE)


def _layout(packed: dict[str, Any]) -> dict[str, str]:
    """Dtype and shape of each array, as JSON."""
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in packed.items()}


def _unpack(packed: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `_pack` for arrays shaped as `like`, placed as they are."""
    found = {name: packed[f"large_{i}"] for i, name in enumerate(_large(like))}
    for dtype, names in _small(like).items():
        ends = np.cumsum([like[name].size for name in names])
        parts = np.split(np.asarray(packed[f"small_{dtype}"]), ends[:-1])
        found |= {name: part.reshape(like[name].shape) for name, part in zip(names, parts, strict=True)}
    return {name: sharding.put(found[name], like[name].sharding) for name in like}


def _small(arrays: dict[str, Any]) -> dict[str, list[str]]:
    """Names of the small arrays by dtype."""
    groups: dict[str, list[str]] = {}
    for name, x in arrays.items():
        if x.size <= _SMALL:
            groups.setdefault(str(x.dtype), []).append(name)
    return groups


def _large(arrays: dict[str, Any]) -> list[str]:
    return [name for name, x in arrays.items() if x.size > _SMALL]
