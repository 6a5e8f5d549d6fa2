"""Checkpoints of one stage: the newest is always kept, and usually also the best on validation.

DIRECTORY/NUMBER/state/      the arrays, as Orbax writes them
DIRECTORY/NUMBER/meta.json   what the arrays belong to, and the SHA-256 of every file in state/ and of the arrays

A checkpoint counts only once its folder has its final name, so one that a kill or a full disk interrupts never counts.
Its files are checked before Orbax reads them: from damaged files Orbax may return wrong numbers, raise any error, or
hang.
"""

import contextlib
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from vpns_jax import files
from vpns_jax.errors import UserError, first_line
from vpns_jax.parallel import processes
from vpns_jax.storage import storage_errors
from vpns_jax.training import packing
from vpns_jax.training.checksums import digest_of, hashes_of, problem_of

PyTree = Any

_UNFINISHED = ".unfinished"


def within_epochs(directory: Path) -> Path:
    """The folder of checkpoints within epochs, beside a stage's checkpoints at the end of epochs."""
    return directory.with_name(f"{directory.name}-within")


class Checkpoints:
    """The checkpoints of one stage of one run, numbered by epochs or steps. Use it in `with`, or `close` it.

    Attributes:
      keeps_best: whether the best is kept in addition to the newest.
    """

    def __init__(self, directory: Path, fingerprint: str, *, keep_best: bool = True) -> None:
        """Names a folder of checkpoints.

        Args:
          directory: the folder, which is made with the first checkpoint.
          fingerprint: identifies the configuration and its inputs; a checkpoint with another one is refused.
          keep_best: whether the best is kept in addition to the newest; otherwise accuracies are not used.
        """
        self.keeps_best = keep_best
        self._directory = directory.absolute()
        self._fingerprint = fingerprint
        self._orbax = ocp.Checkpointer(ocp.StandardCheckpointHandler())

    def save(self, number: int, tree: PyTree, *, accuracy: float | None = None) -> None:
        """Writes a checkpoint, and removes those that are neither the newest nor the best.

        Args:
          number: the number of epochs, or of steps, after which it is written; above all existing ones.
          tree: a tree of arrays.
          accuracy: the validation accuracy; None if it is not known.

        Raises:
          UserError: the disk cannot be written; existing checkpoints are unchanged.
          ValueError: there is a checkpoint with this number or a higher one.
        """
        if number <= self.newest_number():
            raise ValueError(f"checkpoint {number} comes after {self.newest_number()} under {self._directory}")
        before = self._best()
        # If accuracies are equal, the earlier epoch is better.
        improved = self.keeps_best and accuracy is not None and (before is None or accuracy > before["accuracy"])
        best = {"epoch": number, "accuracy": accuracy} if improved else before
        with self._written(self._directory / str(number)) as unfinished:
            arrays = _named(tree)
            packed = packing.pack(arrays)
            digest = digest_of(arrays)
            self._orbax.save(unfinished / "state", args=ocp.args.StandardSave(packed))
            meta = {"number": number, "fingerprint": self._fingerprint, "layout": packing.layout(packed)}
            meta |= {"accuracy": accuracy, "best": best, "digest": digest}
            if processes.is_primary():
                files.write_sealed(unfinished / "meta.json", meta | {"files": hashes_of(unfinished / "state")})
        if processes.is_primary():
            with storage_errors(self._directory):
                self._remove(set(self._numbers()) - {number, best["epoch"] if best else number})
        processes.barrier("checkpoint written")

    def newest_number(self) -> int:
        """Finds the newest checkpoint.

        Returns:
          Its number; 0 if there is none yet.

        Raises:
          UserError: a folder has a name that no checkpoint has.
        """
        return max(self._numbers(), default=0)

    def newest(self, like: PyTree) -> tuple[int, PyTree] | None:
        """Reads the newest checkpoint; see `restore`.

        The best one is checked, too, so that damage to it is known before training continues.

        Args:
          like: a tree of arrays; see `restore`.

        Returns:
          The number and the tree; None if there is no checkpoint yet.

        Raises:
          UserError: the newest or the best checkpoint is damaged, or belongs to another run.
        """
        number = self.newest_number()
        if not number:
            return None
        best = self._best()
        if best is not None and best["epoch"] != number:
            self._check(best["epoch"])
        return number, self.restore(number, like)

    def best(self, like: PyTree) -> tuple[int, PyTree]:
        """Reads the checkpoint with the best validation accuracy, the earliest if several are equal; see `restore`.

        Args:
          like: a tree of arrays; see `restore`.

        Returns:
          The number and the tree.

        Raises:
          UserError: the checkpoint is damaged, or belongs to another run.
          ValueError: there is no checkpoint.
        """
        best = self._best()
        if best is None:
            raise ValueError(f"no checkpoint has been saved under {self._directory}")
        return best["epoch"], self.restore(best["epoch"], like)

    def best_accuracy(self) -> float | None:
        """Reads the validation accuracy of the best checkpoint.

        Returns:
          The accuracy; None if there is no checkpoint yet.

        Raises:
          UserError: a checkpoint is damaged, or belongs to another run.
        """
        best = self._best()
        return None if best is None else best["accuracy"]

    def restore(self, number: int, like: PyTree) -> PyTree:
        """Reads a checkpoint, bit for bit.

        Args:
          number: that of the checkpoint.
          like: a tree of arrays of the same structure, shapes and dtypes; the result is placed on the same devices.

        Returns:
          The tree.

        Raises:
          UserError: the checkpoint is damaged, or belongs to another configuration or other inputs.
        """
        where, meta = self._directory / str(number), self._check(number)
        arrays = _named(like)
        target = packing.packed_like(arrays)
        if meta["layout"] != packing.layout(target):
            raise UserError(
                f"checkpoint {where} holds other arrays than this version expects; choose another --workdir"
            )
        try:
            with _quiet():
                saved = self._orbax.restore(where / "state", args=ocp.args.StandardRestore(target))
        except Exception as error:  # Orbax and its storage raise many kinds of error.
            raise self._damaged(number, f"Orbax cannot read it ({first_line(error)})") from error
        restored = packing.unpack(saved, arrays)
        if digest_of(restored) != meta["digest"]:
            raise self._damaged(number, "its arrays do not match their checksum")
        return jax.tree.unflatten(jax.tree.structure(like), [restored[name] for name in arrays])

    def close(self) -> None:
        """Closes Orbax."""
        self._orbax.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _numbers(self) -> list[int]:
        """The numbers of all checkpoints.

        Raises:
          UserError: a folder has a name that no checkpoint has.
        """
        if not self._directory.is_dir():
            return []
        numbers = []
        for path in self._directory.iterdir():
            if path.name.startswith(".") or path.name.endswith(_UNFINISHED):
                continue
            if not (path.name.isascii() and path.name.isdigit() and str(int(path.name)) == path.name):
                raise UserError(f"{path} is not the name of a checkpoint; rename it back, or remove it")
            numbers.append(int(path.name))
        return numbers

    def _best(self) -> dict[str, Any] | None:
        """Epoch and accuracy of the best, as the newest checkpoint stores them; None if no best one is kept."""
        newest = self.newest_number()
        if not self.keeps_best or not newest:
            return None
        best = self._meta(newest)["best"]
        if best is not None and best["epoch"] not in self._numbers():
            raise UserError(
                f"checkpoint {self._directory / str(best['epoch'])}, the best so far, is gone; put it back, or remove "
                f"{self._directory} to run the stage again"
            )
        return best

    def _meta(self, number: int) -> dict[str, Any]:
        path = self._directory / str(number) / "meta.json"
        meta = files.read_sealed(path, self._remedy(number))
        if meta["number"] != number:
            raise UserError(
                f"{path.parent} is checkpoint {meta['number']} under another name; rename it back, or remove it"
            )
        if meta["fingerprint"] != self._fingerprint:
            raise UserError(
                f"checkpoint {path.parent} was made by another config, or on other inputs; choose another --workdir"
            )
        return meta

    def _check(self, number: int) -> dict[str, Any]:
        """The meta data of a checkpoint whose files are intact.

        Raises:
          UserError: a file is damaged.
        """
        meta, state = self._meta(number), self._directory / str(number) / "state"
        problem = problem_of(state, meta["files"])
        if problem:
            raise self._damaged(number, problem)
        return meta

    def _damaged(self, number: int, problem: str) -> UserError:
        where = self._directory / str(number)
        return UserError(f"checkpoint {where} is damaged: {problem}; {self._remedy(number)}")

    def _remedy(self, number: int) -> str:
        """What to do about a damaged checkpoint: continue from an older intact one, or run the stage again."""
        for older in sorted((other for other in self._numbers() if other < number), reverse=True):
            place = self._directory / str(older)
            with contextlib.suppress(UserError, KeyError):
                meta = files.read_sealed(place / "meta.json", "")
                if meta["fingerprint"] == self._fingerprint and not problem_of(place / "state", meta["files"]):
                    return f"remove {self._directory / str(number)} to continue from {older}, which is intact"
        within = within_epochs(self._directory)
        both = f"{self._directory} and {within.name} beside it" if within.exists() else str(self._directory)
        return f"remove {both} to run the stage again"

    @contextlib.contextmanager
    def _written(self, place: Path) -> Iterator[Path]:
        """A folder to write into, which gets its final name if nothing is raised. Disk errors become `UserError`."""
        unfinished = place.with_name(f"{place.name}{_UNFINISHED}")
        try:
            with storage_errors(place), _quiet():
                if processes.is_primary():
                    shutil.rmtree(unfinished, ignore_errors=True)
                    unfinished.mkdir(parents=True)
                processes.barrier("checkpoint begun")
                yield unfinished
                if processes.is_primary():
                    unfinished.rename(place)
        finally:
            if processes.is_primary():
                shutil.rmtree(unfinished, ignore_errors=True)

    def _remove(self, numbers: set[int]) -> None:
        for number in numbers:
            # Renamed first, so that a kill never leaves half a checkpoint that counts.
            away = self._directory / f"{number}{_UNFINISHED}"
            shutil.rmtree(away, ignore_errors=True)
            (self._directory / str(number)).rename(away)
            shutil.rmtree(away, ignore_errors=True)


def _named(tree: PyTree) -> dict[str, Any]:
    """The tree's arrays by path, in the tree's order. Paths do not depend on the types of containers."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Orbax's warnings about its own defaults, and its threads' tracebacks of errors that are also raised."""
    log = logging.getLogger("absl")
    before, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before
