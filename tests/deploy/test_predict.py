"""What a finished network says of images, and that it says it as the run that made it does."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from tests.deploy import finished
from tests.experiment import small
from tests.training import tiny
from vpns_jax import deploy, prompting
from vpns_jax.data import Decoding
from vpns_jax.data.folder import open_folder
from vpns_jax.deploy import Predictions
from vpns_jax.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_world")]


def by_hand(classifier, image, *, prompted):
    """One image, step by step."""
    about, arrays = classifier.description, classifier.subnetwork
    resized = np.asarray(Image.fromarray(image).resize((about.image_size,) * 2, Image.Resampling.BILINEAR))
    prompt = about.prompt if prompted else prompting.create("none", canvas_size=about.prompt.canvas_size)
    x = np.asarray(jax.jit(prompt.apply)(arrays.prompt if prompted else {}, resized[None].astype(np.float32) / 255))
    x = (x - np.asarray(about.mean, np.float32)) / np.asarray(about.std, np.float32)
    logits = jax.jit(tiny.Tiny().apply)({"params": arrays.weights, "batch_stats": arrays.batch_stats}, x)
    exponentials = np.exp(np.asarray(logits)[0, np.asarray(arrays.mapping)])
    return exponentials / exponentials.sum()


@pytest.mark.parametrize("prompted", [True, False])
def test_one_image_step_by_step(prompted):
    classifier = finished.classifier()
    image = finished.images(1, 11)[0]
    answer = classifier.predict(image, prompted=prompted)
    np.testing.assert_allclose(answer.probabilities, by_hand(classifier, image, prompted=prompted)[None], atol=1e-6)


def test_prompted_by_default_where_there_is_a_prompt():
    image = finished.images(1, 6)
    for prompt, prompted in (("pad", True), ("none", False)):
        classifier = finished.classifier(prompt)
        default = classifier.predict(image).probabilities
        assert np.array_equal(default, classifier.predict(image, prompted=prompted).probabilities)
    assert not np.allclose(*(finished.classifier().predict(image, prompted=way).probabilities for way in (True, False)))
    with pytest.raises(UserError, match="has no prompt"):
        finished.classifier("none").predict(image, prompted=True)


@pytest.fixture
def compiled():
    """The names of the events so far in which a program was compiled, or taken from the cache on disk."""
    events = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def test_images_of_any_number_and_size_and_nothing_is_compiled_twice(compiled):
    classifier = finished.classifier()
    many = [*finished.images(3, 6), *finished.images(4, 17), finished.images(1, 5)[0, :, :3]]
    expected = np.stack([classifier.predict(image).probabilities[0] for image in many])
    assert classifier.predict(many, batch_size=4).probabilities.shape == (8, 3)
    compiled.clear()
    for count in (2, 3, 4, 5, 8):
        probabilities = classifier.predict(many[:count], batch_size=4).probabilities
        np.testing.assert_allclose(probabilities, expected[:count], atol=1e-6)
    assert classifier.predict([]).probabilities.shape == (0, 3)
    assert not compiled
    # A shape of its own, which no other test compiles, would have been seen.
    classifier.predict(many, batch_size=19)
    assert compiled


def test_grey_images_are_three_equal_channels():
    classifier, grey = finished.classifier(), finished.images(2, 9, channels=1)
    found, expected = (classifier.predict(x).probabilities for x in (grey, np.repeat(grey, 3, axis=-1)))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), [np.zeros((8, 8, 4), np.uint8)], "path.png"],
)
def test_what_is_no_image(images):
    with pytest.raises(UserError, match=r"images must be uint8 \[b, h, w, 3\]"):
        finished.classifier().predict(images)


def test_names_and_the_likeliest_few():
    predictions = Predictions(np.asarray([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]], np.float32), ("a", "b", "c"))
    assert predictions.labels.tolist() == [1, 0]
    assert predictions.names == ("b", "a")
    assert [[name for name, _ in row] for row in predictions.top(2)] == [["b", "c"], ["a", "c"]]
    assert [(name, round(share, 6)) for name, share in predictions.top(9)[0]] == [("b", 0.5), ("c", 0.3), ("a", 0.2)]


def dark_images(folder):
    """Writes images of sixteen bits of grey that use the lowest twelve; their brightness says their class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 24), ("test", 24)):
        for number in range(count):
            label = number % 3
            path = folder / split / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            levels = rng.integers(1000 * label + 10, 1000 * label + 900, (9, 7)).astype(np.uint16)
            levels[0, 0], levels[0, 1] = 7, 4000
            Image.fromarray(levels).save(path)
    return f"folder:{folder}"


@pytest.mark.parametrize(
    ("images", "changes", "grey_range"),
    [
        (
            small.images,
            {
                "methods": ("vpns",),
                "prompt__parametrization": "tanh",
                "model__mean": (0.1,) * 3,
                "model__std": (0.2,) * 3,
            },
            (0, 65535),
        ),
        # The scale was measured over the set, and stands in the file.
        (
            dark_images,
            {
                "methods": ("random",),
                "protocol": "reference",
                "data__image_size": 6,
                "mapping__kind": "head",
            },
            (7, 4000),
        ),
    ],
)
def test_a_runs_networks_answer_as_the_run_says(tmp_path, images, changes, grey_range):
    """The file alone, and the image files of the test split: the accuracy that the run reports."""
    data = images(tmp_path / "images")
    summary = small.go(tmp_path / "run", data, **changes)
    (cell,) = summary["cells"]
    classifier = deploy.load(tmp_path / "run" / "subnetworks" / cell["cell"])
    assert classifier.classes == ("0", "1", "2")
    assert classifier.description.decoding == Decoding(exif=True, grey_range=grey_range)
    assert classifier.description.origin["accuracy"]["test"] == cell["test"]["best"]
    test = open_folder(data).test
    pictures = [test[i][0] for i in range(len(test))]
    for way, prompted in (("plain", False), ("prompted", True)):
        if cell["test"]["best"][way] is not None:
            labels = classifier.predict(pictures, prompted=prompted, batch_size=5).labels
            assert np.mean(labels == test.labels) == pytest.approx(cell["test"]["best"][way])


def test_a_batch_in_memory_is_left_as_it_is():
    batch = finished.images(3, 9)
    before = batch.copy()
    finished.classifier().predict(batch)
    assert np.array_equal(batch, before)


def test_a_description_is_changed_by_making_another_one():
    classifier = finished.classifier()
    renamed = dataclasses.replace(classifier, description=finished.description(classes=("x", "y", "z")))
    assert renamed.predict(finished.images(1, 6)).classes == ("x", "y", "z")
