"""What all formats share: a file is kept only if it answers as the network does."""

import dataclasses

import numpy as np
import pytest

from tests.deploy import finished
from vpns_jax import deploy
from vpns_jax.deploy import exports, verifying
from vpns_jax.deploy.exports import Format, Option
from vpns_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("small_world")


def write(classifier, path, *, shift):
    path.write_text(shift)
    return classifier


def answers(path, classifier, squares):
    return verifying.logits(classifier, squares) + float(path.read_text())


NOTES = Format("notes", "", ".notes", write, answers, (Option("shift", "", ("0", "1", "nan", "1e-7")),))


@pytest.fixture(autouse=True)
def _notes(monkeypatch):
    monkeypatch.setitem(exports.FORMATS, "notes", NOTES)


def refused(words, *arguments, **options):
    with pytest.raises(UserError) as error:
        deploy.export(*arguments, **options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 400


@pytest.mark.slow
def test_a_file_with_the_same_answers_is_kept(tmp_path):
    exported = deploy.export(finished.classifier(), tmp_path / "a.notes", format="notes", shift="1e-7")
    assert exported.path.read_text() == "1e-7"
    assert exported.bytes == 4
    assert 0 < exported.difference.largest < 1e-6
    assert exported.difference.agreement == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.notes"]


@pytest.mark.parametrize("shift", ["1", "nan"])
def test_a_file_with_other_answers_is_not(tmp_path, shift):
    refused("does not answer", finished.classifier(), tmp_path / "a.notes", format="notes", shift=shift)
    assert not list(tmp_path.iterdir())


def test_what_is_no_export(tmp_path):
    classifier, path = finished.classifier(), tmp_path / "a.notes"
    refused("unknown format 'tflite'; known: ", classifier, path, format="tflite")
    refused("has no option 'colour'; it has shift", classifier, path, format="notes", colour="red")
    refused("unknown shift '2'; known: 0, 1", classifier, path, format="notes", shift="2")
    refused("which is .notes", classifier, tmp_path / "a.txt", format="notes")
    refused("there is no folder", classifier, tmp_path / "nowhere" / "a.notes", format="notes")
    path.write_text("mine")
    refused("exists already", classifier, path, format="notes")
    assert path.read_text() == "mine"


def test_differences_by_hand():
    expected = np.asarray([[0.0, 2.0], [4.0, 2.0]])
    difference = verifying.compare(np.asarray([[0.0, 2.0], [1.0, 2.0]]), expected)
    assert difference == verifying.Difference(3 / np.sqrt(2), 0.5, 2)
    assert verifying.compare(expected[:1], expected).largest == np.inf
    # Where all answers are the same, the difference is in units of the logits.
    assert verifying.compare(np.full((3, 2), 1.5), np.ones((3, 2))).largest == 0.5


def test_images_go_from_coarse_to_fine_and_are_always_the_same():
    classifier = finished.classifier()
    images = verifying.images(classifier)
    assert images.shape == (8, 6, 6, 3)
    assert np.array_equal(images, verifying.images(classifier))
    roughness = np.abs(np.diff(images.astype(float), axis=1)).mean((1, 2, 3))
    assert roughness[0] < roughness[-1]


def test_without_a_prompt():
    """The prompt is all that is taken off; on which canvas a plain image lies stays."""
    classifier = finished.classifier()
    images = finished.images(3, 6)
    plain = classifier.without_prompt()
    assert not plain.description.prompted
    assert np.array_equal(plain.predict(images).probabilities, classifier.predict(images, prompted=False).probabilities)
    assert dataclasses.replace(plain.description, prompt=classifier.description.prompt) == classifier.description


def test_without_a_cpu_nothing_is_compared(tmp_path, monkeypatch):
    def devices(_):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(verifying.jax, "devices", devices)
    refused("JAX_PLATFORMS leaves out", finished.classifier(), tmp_path / "a.notes", format="notes")
    assert not list(tmp_path.iterdir())
