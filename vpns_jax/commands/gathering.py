"""Finds the image files that a command line names, and their classes, by the names of their folders."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vpns_jax import files
from vpns_jax.data import printable
from vpns_jax.data.listing import find_images
from vpns_jax.data.text import composed
from vpns_jax.errors import LONGEST, UserError, several, short


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The files to read.

    Attributes:
      paths: the files.
      folders: for each file the name of its sub-folder in the folder that was named; "" if there is none.
      notes: a line about each file that was ignored.
    """

    paths: tuple[Path, ...]
    folders: tuple[str, ...]
    notes: tuple[str, ...]

    def labels(self, classes: Sequence[str]) -> tuple[int | None, ...]:
        """The class of each file: that with the name of its folder; None if there is no such class."""
        numbers = {name: number for number, name in enumerate(classes)}
        return tuple(numbers.get(folder) for folder in self.folders)

    def unknown_folders(self, classes: Sequence[str]) -> str:
        """A line about the sub-folders that have no class's name; "" if there are none."""
        counts = collections.Counter(folder for folder in self.folders if folder and folder not in classes)
        if not counts:
            return ""
        # Both are printable already.
        return (
            f"{sum(counts.values())} images are in folders that are called like no class, and not counted as right or "
            f"wrong: {several(counts, width=40)}; the classes are {several(classes, width=40)}"
        )


def gather(named: Sequence[str]) -> Gathered:
    """Finds the images, without opening them.

    Args:
      named: files and folders. In folders, images are found at any depth.

    Returns:
      The files.

    Raises:
      UserError: a file does not exist, or a folder has no images.
    """
    paths: list[Path] = []
    folders: list[str] = []
    notes: list[str] = []
    for name in named:
        path = files.user_path(name, "IMAGES_OR_FOLDER")
        if path.is_dir():
            images, passed = find_images(path)
            if not images:
                hint = f"; {passed[0]}" if passed else ""
                raise UserError(f"{short(printable(name))} has no image in it, at any depth{hint}"[:LONGEST])
            paths += [path / image for image in images]
            folders += [printable(composed(image.split("/")[0])) if "/" in image else "" for image in images]
            notes += passed
        elif path.is_file():
            paths.append(path)
            folders.append("")
        else:
            raise UserError(f"{short(printable(name))}: there is no such file or folder")
    return Gathered(tuple(paths), tuple(folders), tuple(notes))
