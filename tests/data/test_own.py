"""Data sets that a function of the user's returns."""

import numpy as np
import pytest
from PIL import Image

from tests.experiment import small
from tests.training import tiny
from vpns_jax import data, references
from vpns_jax.data import own
from vpns_jax.errors import UserError

GRAY, COLOR = np.full((2, 3), 7, np.uint8), np.arange(18, dtype=np.uint8).reshape(2, 3, 3)


def named(monkeypatch, **made):
    """Makes `own` return this mapping."""
    monkeypatch.setattr(references, "resolve", lambda name, kind: lambda: made)
    own.open_own.cache_clear()
    return "mine:make"


def test_a_module_in_the_current_folder(tmp_path, monkeypatch):
    code = "def make():\n    import numpy as np\n    items = [(np.zeros((4, 4), np.uint8), i % 2) for i in range(6)]\n"
    (tmp_path / "my_pictures.py").write_text(code + "    return {'train': items, 'test': items[:2]}\n")
    monkeypatch.chdir(tmp_path)
    sources = data.open_sources("my_pictures:make", val_fraction=0.34, seed=0)
    assert (sources.classes, sources.flip) == (("0", "1"), True)
    assert (len(sources.train), len(sources.val), len(sources.test)) == (4, 2, 2)


def test_items_of_every_form(monkeypatch):
    train = [(GRAY, 0), {"image": COLOR, "label": np.int64(1), "name": "b"}, (Image.fromarray(COLOR).convert("P"), 2)]
    test = [(GRAY[..., None], np.array([0]))]
    name = named(monkeypatch, train=train, val=train, test=test, classes=("a", "b", "c"), flip=False)
    sources = data.open_sources(name)
    assert (sources.classes, sources.flip, len(sources.val)) == (("a", "b", "c"), False, 3)
    assert sources.train.labels.tolist() == [0, 1, 2]
    image, label = sources.train[1]
    assert np.array_equal(image, COLOR)
    assert label == 1
    # Gray images get three channels where others have color.
    assert np.array_equal(sources.test[0][0], np.repeat(GRAY[..., None], 3, axis=-1))


def test_names_of_classes_are_made_printable(monkeypatch):
    name = named(monkeypatch, train=[(GRAY, 0)], val=[(GRAY, 1)], test=[(GRAY, 2)], classes=["a\nb", 7, "é"])
    assert data.open_sources(name).classes == (r"a\x0ab", "7", "é")


def test_the_digest_covers_pixels_labels_and_names(monkeypatch):
    def digest(**changes):
        made = {"train": [(COLOR, 0), (GRAY, 1)], "test": [(GRAY, 0)], "classes": ("a", "b")} | changes
        return data.identity(named(monkeypatch, **made))

    other = COLOR.copy()
    other[1, 2, 0] += 1
    digests = [
        digest(),
        digest(train=[(other, 0), (GRAY, 1)]),
        digest(train=[(COLOR, 1), (GRAY, 1)]),
        digest(test=[(GRAY.T, 0)]),
        digest(classes=("a", "c")),
        digest(classes=("ab", "c")),
        digest(classes=("a", "bc")),
        digest(val=[(GRAY, 0)]),
    ]
    assert digest() == digests[0]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"train": [(GRAY, 0)]}, "returned the keys train; it must be a mapping with train and test"),
        ({"train": iter(()), "test": []}, r"mine:make, train: a split needs len\(\) and \[index\]"),
        (
            {"train": [(GRAY / 255, 0)], "test": []},
            r"train, item 0: the image is float64 \[2, 3, 1\]; allowed are uint8",
        ),
        ({"train": [(COLOR.T, 0)], "test": []}, r"the image is uint8 \[3, 3, 2\]"),
        ({"train": [(GRAY, 0), (GRAY, "cat")], "test": []}, "train, item 1: the label is 'cat'; it must be an integer"),
        ({"train": [(GRAY, -1)], "test": []}, "the label is '-1'"),
        ({"train": [GRAY[0]], "test": []}, "train, item 0: ValueError: too many values"),
        ({"train": [(GRAY, 2)], "test": [], "classes": ("a", "b")}, "has the label 2, and names 2 classes"),
        ({"train": [(GRAY, 0)], "val": [(GRAY, 0)], "test": []}, "has no test images"),
        ({"train": [(GRAY, 0)], "test": [], "classes": None}, "has the classes None; they must be a list of names"),
        ({"train": [(GRAY, 0)], "test": [], "classes": 10}, "has the classes 10; they must be a list of names"),
        ({"train": [(GRAY, 0)], "test": [], "classes": "cat"}, "has the classes 'cat'; they must be a list of names"),
        ({"train": [(GRAY, 0)], "test": [], "classes": {"a", "b"}}, "they must be a list of names"),
    ],
)
def test_what_does_not_fit_is_one_line(monkeypatch, made, message):
    with pytest.raises(UserError, match=message) as caught:
        data.open_sources(named(monkeypatch, **made))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:make", "module no_such_module cannot be imported: ModuleNotFoundError"),
        ("json:make_data", "module json has no function make_data"),
    ],
)
def test_a_function_that_is_not_there(name, message):
    with pytest.raises(UserError, match=message):
        data.check(name)


@pytest.mark.slow
def test_a_whole_run(tmp_path, monkeypatch):
    def split(seed):
        drawn = tiny.split(seed=seed)
        return list(zip(np.asarray(drawn.images), drawn.labels, strict=True))

    name = named(monkeypatch, train=split(0), val=split(1), test=split(2), classes=("x", "y", "z"))
    with small.world(tmp_path, monkeypatch):
        summary = small.go(tmp_path / "run", name)
    assert list(summary["classes"]) == ["x", "y", "z"]
