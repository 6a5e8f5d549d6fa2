"""Bad configs, folders, weight files and flipped bytes, by the hundred: `make faults` prints what became of them.

Everything is drawn with a fixed seed. A fault that is neither an error nor harmless is silent; the script ends with
exit code 1 if one is, or if anything but a short line is raised.
"""

import contextlib
import dataclasses
import io
import itertools
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests import test_bad_configs
from tests.experiment import small
from vpns_jax import data, models, trees
from vpns_jax.deploy import subnetworks
from vpns_jax.errors import LONGEST, UserError, short
from vpns_jax.experiment import config

SEED, MANY, FLIPS = 7, 300, 64


@dataclasses.dataclass
class Tally:
    """What became of one family of faults."""

    name: str
    tried: int = 0
    refused: int = 0
    harmless: int = 0
    longest: int = 0
    silent: list[str] = dataclasses.field(default_factory=list)
    tracebacks: list[str] = dataclasses.field(default_factory=list)
    long: list[str] = dataclasses.field(default_factory=list)

    def attempt(self, what: str, harmless: Callable[[], bool]) -> None:
        """Counts one fault: `harmless` tries it, and says whether what came of it is right."""
        self.tried += 1
        try:
            # A run talks to the terminal.
            with contextlib.redirect_stdout(io.StringIO()):
                right = harmless()
        except UserError as error:
            line = str(error)
            self.refused += 1
            self.longest = max(self.longest, len(line))
            if "\n" in line or len(line) > LONGEST:
                self.long.append(f"{what}: {line[:80]}")
        except Exception as error:
            self.tracebacks.append(f"{what}: {type(error).__name__}: {str(error)[:80]}")
        else:
            self.harmless += right
            if not right:
                self.silent.append(what)

    def row(self) -> str:
        """A row of the table."""
        counts = (self.tried, self.refused, self.harmless, len(self.silent), len(self.tracebacks), len(self.long))
        return f"| {self.name} | {' | '.join(map(str, counts))} | {self.longest} |"

    @property
    def faults(self) -> list[str]:
        """All that should not be."""
        return [*self.silent, *self.tracebacks, *self.long]


def configs(count: int) -> Tally:
    """Configs with one bad value, a missing key or an unknown one: none can be meant."""
    tally = Tally("configs")
    for done, tree in itertools.islice(test_bad_configs.bad_trees(), count):

        def parse(tree: dict = tree) -> bool:
            config.parse(tree)
            return False

        tally.attempt(short(done), parse)
    return tally


def folders(count: int, place: Path) -> Tally:
    """Folders as people have them; the generator knows how many images of how many classes are right."""
    tally, draw = Tally("folders"), random.Random(SEED)
    for number in range(count):
        root = place / str(number)
        classes, images, what = make_folder(root, draw)

        def read(root: Path = root, expected: tuple[int, int] = (classes, images)) -> bool:
            found = data.open_sources(f"folder:{root}", val_fraction=0.25)
            return (len(found.classes), len(found.train) + len(found.val) + len(found.test)) == expected

        tally.attempt(what, read)
        shutil.rmtree(root)
    return tally


def make_folder(root: Path, draw: random.Random) -> tuple[int, int, str]:
    """Makes a folder. Returns how many classes and images it holds (0, 0 where it must be refused), and its kind."""
    classes, each = draw.randint(2, 4), draw.randint(4, 6)
    kind = draw.choice(("plain", "splits", "masks", "no train", "empty", "nothing", "junk"))
    names = draw.sample(("cat", "犬", "Ä b", "x.y", "dog", "🐶", "n01"), classes)
    tops = {"splits": ("Train", "TEST"), "no train": ("test", "val"), "masks": ("images", "masks")}.get(kind, ("",))
    root.mkdir(parents=True)
    if kind == "nothing":
        return 0, 0, kind
    for top in tops:
        for name in names:
            for i in range(each):
                save_image(root / top / name / f"{i}.png", draw)
    if kind == "empty":
        shutil.rmtree(root / names[0])
        (root / names[0]).mkdir()
    if kind == "junk":
        for extra in (".ipynb_checkpoints", "@eaDir"):
            save_image(root / names[0] / extra / "0.png", draw)
        save_image(root / "__MACOSX" / "0.png", draw)
        (root / names[0] / "notes.txt").write_text("no image")
        (root / names[0] / "broken.png").write_bytes(b"no image either")
    wrong = kind in ("masks", "no train", "empty")
    return (0, 0, kind) if wrong else (classes, classes * each * len(tops), kind)


def save_image(path: Path, draw: random.Random) -> None:
    """A small picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.frombuffer(draw.randbytes(192), np.uint8).reshape(8, 8, 3)).save(path)


def weights(count: int, place: Path) -> Tally:
    """Weight files with a flipped byte where names and shapes stand, cut, or of something else."""
    tally, draw = Tally("weight files"), random.Random(SEED)
    options = {"width": 1 / 16, "image_size": 32}
    model = models.create("resnet18", width=1 / 16)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    whole = place / "whole.safetensors"
    models.save_safetensors(whole, models.export("resnet18", variables))
    expected, raw = trees.flatten(models.load_pretrained("resnet18", whole, **options)), whole.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    for number in range(count):
        kind, path = draw.choice(("flip", "flip", "cut", "page", "grown")), place / f"{number}.safetensors"
        flip = bytearray(raw)
        flip[draw.randrange(header)] ^= 1 << draw.randrange(8)
        path.write_bytes(
            {
                "flip": bytes(flip),
                "cut": raw[: draw.randrange(len(raw))],
                "page": b"<!DOCTYPE html><html>log in</html>",
                "grown": raw + draw.randbytes(9),
            }[kind]
        )

        def load(path: Path = path) -> bool:
            found = trees.flatten(models.load_pretrained("resnet18", path, **options))
            return found.keys() == expected.keys() and all(np.array_equal(found[k], expected[k]) for k in expected)

        tally.attempt(f"{kind} {number}", load)
        path.unlink()
    return tally


def flips(count: int, place: Path) -> Tally:
    """A flipped bit anywhere in a finished run: it is noticed, or the results and the network are as they were."""
    tally, draw = Tally("flipped bits of a run"), random.Random(SEED)
    images, workdir = small.images(place / "images"), place / "run"
    before = small.go(workdir, images)
    network = next(path for path in (workdir / "subnetworks").glob("hydra*.safetensors") if ".task" not in path.name)
    kept = jax.device_get(subnetworks.load(network, "tiny", image_size=8))
    backup = place / "backup"
    shutil.copytree(workdir, backup)
    files = sorted(path.relative_to(workdir) for path in workdir.rglob("*") if path.is_file() and path.stat().st_size)
    for _ in range(count):
        file = draw.choice(files)
        raw = bytearray((workdir / file).read_bytes())
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        (workdir / file).write_bytes(raw)

        def again() -> bool:
            found = jax.device_get(subnetworks.load(network, "tiny", image_size=8))
            same = jax.tree.all(jax.tree.map(np.array_equal, found, kept))
            return same and small.go(workdir, images)["cells"] == before["cells"]

        tally.attempt(str(file), again)
        shutil.rmtree(workdir)
        shutil.copytree(backup, workdir)
    return tally


def tallies(many: int, few: int) -> Iterator[Tally]:
    """All families: `many` of each, `few` of the flips."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        place = Path(folder)
        with small.world(place, patch):
            yield configs(many)
            yield folders(many, place / "folders")
            yield weights(many, place)
            yield flips(few, place)


def main() -> int:
    """Prints the table. Returns 1 if there is anything that should not be."""
    print("| | tried | refused in a line | harmless | silent | tracebacks | long | longest line |")
    print("| :-- | --: | --: | --: | --: | --: | --: | --: |")
    found = []
    for tally in tallies(MANY, FLIPS):
        print(tally.row(), flush=True)
        found += [f"{tally.name}: {fault}" for fault in tally.faults]
    print("\n".join(found[:30]))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
