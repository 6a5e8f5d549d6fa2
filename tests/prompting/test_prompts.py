"""Prompts: their place, their perturbation, and their gradients."""

import jax
import numpy as np
import pytest

from vpns_jax import prompting
from vpns_jax.errors import UserError
from vpns_jax.prompting import KINDS

SIZES = {"pad": {"pad_size": 1}, "expand": {"pad_size": 1}, "corner": {"patch_size": 2}, "random": {"patch_size": 2}}
GREY = np.full((1, 2, 2, 3), 0.5, np.float32)


def make(kind, canvas_size=4, **options):
    return prompting.create(kind, canvas_size=canvas_size, **(SIZES.get(kind, {}) | options))


def filled(prompt, value):
    return {name: np.full(shape, value, np.float32) for name, shape in prompt.shapes().items()}


# One program for each, because each operation would be one of its own.
_apply = jax.jit(lambda prompt, *arguments: prompt.apply(*arguments), static_argnums=0)
_perturbation = jax.jit(lambda prompt, params: prompt.perturbation(params), static_argnums=0)


def apply(prompt, *arguments):
    return np.asarray(_apply(prompt, *arguments))


def perturbation(prompt, params):
    return np.asarray(_perturbation(prompt, params))


def channel(images):
    return np.asarray(images[0, :, :, 0]).round(6).tolist()


def test_none_pads_the_image_with_zeros():
    assert channel(apply(make("none"), {}, GREY)) == [[0, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 0]]


def test_odd_rest_goes_below_and_right():
    assert channel(apply(make("none", 3), {}, GREY)) == [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0]]


def test_pad_by_hand():
    prompt = make("pad", parametrization="raw")
    image = np.full((1, 4, 4, 3), 0.5, np.float32)
    assert channel(apply(prompt, filled(prompt, 0.25), image)) == [
        [0.75, 0.75, 0.75, 0.75],
        [0.75, 0.5, 0.5, 0.75],
        [0.75, 0.5, 0.5, 0.75],
        [0.75, 0.75, 0.75, 0.75],
    ]
    assert channel(apply(prompt, filled(prompt, 9.0), image))[0] == [1, 1, 1, 1]
    assert channel(apply(prompt, filled(prompt, -9.0), image))[0] == [0, 0, 0, 0]


def test_each_strip_of_the_frame_has_its_place():
    prompt = make("pad")
    params = {name: np.full(shape, i + 1, np.float32) for i, (name, shape) in enumerate(prompt.shapes().items())}
    assert channel(perturbation(prompt, params)[None]) == [[1, 1, 1, 1], [3, 0, 0, 4], [3, 0, 0, 4], [2, 2, 2, 2]]


def test_expand_by_hand():
    prompt = make("expand")
    assert channel(apply(prompt, prompt.init(), GREY)) == [[0.5] * 4] * 4  # sigmoid(0) around 0.5
    assert channel(apply(prompt, filled(prompt, 100.0), GREY))[:2] == [[1, 1, 1, 1], [1, 0.5, 0.5, 1]]


def test_corner_by_hand():
    prompt = make("corner", 3)
    assert channel(apply(prompt, prompt.init(), np.zeros((1, 3, 3, 3), np.float32))) == [
        [0.5, 0.5, 0],
        [0.5, 0.5, 0],
        [0, 0, 0],
    ]


def test_random_moves_over_all_places_and_rests_in_the_center():
    prompt = make("random", 4)
    params, blank = filled(prompt, 100.0), np.zeros((2, 4, 4, 3), np.float32)
    seen = set()
    for seed in range(60):
        x = apply(prompt, params, blank, jax.random.key(seed))
        assert (x[0] == x[1]).all(), "one place a batch"
        assert x[0, :, :, 0].sum() == 4
        seen.add(tuple(np.argwhere(x[0, :, :, 0])[0].tolist()))
    assert seen == {(r, c) for r in range(3) for c in range(3)}
    assert np.argwhere(apply(prompt, params, blank)[0, :, :, 0])[0].tolist() == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_to_the_unit_interval_and_the_canvas(kind):
    prompt = make(kind, 6)
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(2, 4, 4, 3)).astype(np.float32)
    params = {name: 3 * rng.standard_normal(shape, np.float32) for name, shape in prompt.shapes().items()}
    x = apply(prompt, params, images, jax.random.key(2))
    assert x.shape == (2, 6, 6, 3)
    assert 0 <= x.min() <= x.max() <= 1


def test_zero_pad_prompt_is_no_prompt():
    images = np.random.default_rng(0).uniform(size=(2, 5, 5, 3)).astype(np.float32)
    pad, none = make("pad", 8, pad_size=3), make("none", 8)
    assert (apply(pad, pad.init(), images) == apply(none, {}, images)).all()


def test_parameter_counts():
    assert prompting.create("pad", canvas_size=224, pad_size=16).parameter_count() == 39_936
    for s, p in ((224, 112), (7, 3), (8, 4)):
        prompt = prompting.create("pad", canvas_size=s, pad_size=p)
        assert prompt.parameter_count() == 3 * (4 * p * s - 4 * p * p)
        assert all(leaf.size for leaf in jax.tree.leaves(prompt.init()))
        assert perturbation(prompt, filled(prompt, 1.0)).sum() == prompt.parameter_count()
    assert make("random").parameter_count() == 3 * 2 * 2
    assert make("none").parameter_count() == 0


@pytest.mark.parametrize(
    ("parametrization", "start", "at_two"), [("raw", 0, 2), ("sigmoid", 0.5, 0.880797), ("tanh", 0, 0.964028)]
)
def test_parametrizations(parametrization, start, at_two):
    prompt = make("corner", 2, parametrization=parametrization)
    assert perturbation(prompt, prompt.init())[0, 0, 0] == start
    assert float(perturbation(prompt, filled(prompt, 2.0))[0, 0, 0]) == pytest.approx(at_two, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("clamp", "expected"), [("hard", [1, 1, 1, 0]), ("straight_through", [1, 1, 1, 1])])
def test_clamp_gradients(clamp, expected):
    """Within, at either end and beyond: PyTorch's clamp passes the gradient on the closed interval."""
    prompt = make("corner", 2, parametrization="raw", clamp=clamp)
    images = np.float32([0.5, 0.0, 1.0, 0.9]).reshape(1, 2, 2, 1) * np.ones((1, 1, 1, 3), np.float32)
    params = {"patch": np.float32([0.1, 0.0, 0.0, 0.2]).reshape(2, 2, 1) * np.ones((1, 1, 3), np.float32)}
    gradient = jax.jit(jax.grad(lambda p: prompt.apply(p, images)[..., 0].sum()))(params)["patch"]
    assert np.asarray(gradient)[..., 0].ravel().tolist() == expected
    assert apply(prompt, params, images).max() == 1


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("pda", {}, "unknown prompt 'pda'; known: pad, expand, corner, random, none"),
        ("pad", {"pad_size": 3}, "pad_size is 3; prompt pad on a canvas of 4 px allows 1 ... 2"),
        ("pad", {"pad_size": 0}, "pad_size is 0; prompt pad on a canvas of 4 px allows 1 ... 2"),
        ("expand", {"pad_size": 2}, "pad_size is 2; prompt expand on a canvas of 4 px allows 1 ... 1"),
        ("pad", {"canvas_size": 1, "pad_size": 1}, "a canvas of 1 px is too small for prompt pad"),
        ("expand", {"canvas_size": 2, "pad_size": 1}, "a canvas of 2 px is too small for prompt expand"),
        ("corner", {"patch_size": 5}, "patch_size is 5; prompt corner on a canvas of 4 px allows 1 ... 4"),
        ("pad", {"clamp": "soft"}, "unknown prompt clamp 'soft'; known: hard, straight_through"),
        ("pad", {"parametrization": "exp"}, "unknown prompt parametrization 'exp'; known: raw, sigmoid, tanh"),
    ],
)
def test_errors_name_what_is_allowed(kind, options, message):
    with pytest.raises(UserError) as caught:
        make(kind, **options)
    assert str(caught.value) == message


def test_images_that_do_not_fit():
    with pytest.raises(ValueError, match="images of 5 x 5 do not fit a canvas of 4 x 4"):
        apply(make("pad"), make("pad").init(), np.zeros((1, 5, 5, 3), np.float32))
    with pytest.raises(ValueError, match="takes images of 2 x 2, found 3 x 3"):
        apply(make("expand"), make("expand").init(), np.zeros((1, 3, 3, 3), np.float32))
