"""Options: dataclasses whose fields have meanings and allowed values, built from trees and checked."""

import dataclasses
import math

import pytest

from vpns_jax import options
from vpns_jax.errors import UserError
from vpns_jax.options import Range, option


@dataclasses.dataclass(frozen=True)
class Inner:
    """A group."""

    rounds: int = option(3, "How many.", Range(1, 10, "an eleventh is one too many"))
    share: float = option(0.5, "A share.", Range(0, 1, "", "()", must="it must lie in (0, 1)"))
    color: str = option("red", "A color.", ("red", "green"), former="colour")

    def check(self, path):
        """Raises `UserError` if the color is red and there are many rounds."""
        if self.color == "red" and self.rounds > 5:
            raise UserError(f"{path}.rounds is {self.rounds}; red ones have at most 5")


@dataclasses.dataclass(frozen=True)
class Outer:
    """The outer group."""

    names: tuple[str, ...] = option(("a",), "Names.")
    sizes: tuple[float, ...] = option((1.0,), "Sizes.", Range(0, 100, "it would not fit", "(]"))
    inner: Inner = option(Inner(), "The group.")
    more: tuple[Inner, ...] = option((), "More of them.")


def parse(**changes):
    tree = dataclasses.asdict(Outer())
    for path, value in changes.items():
        *groups, key = path.split("__")
        branch = tree
        for group in groups:
            branch = branch[group]
        branch[key] = value
    made = options.build(Outer, tree, "top")
    options.check(made, "top")
    return made


def test_the_defaults_make_the_dataclass():
    assert parse() == Outer()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"inner__rounds": 0}, "top.inner.rounds is 0; it must be at least 1"),
        ({"inner__rounds": 11}, "top.inner.rounds is 11; it must be at most 10: an eleventh is one too many"),
        ({"inner__rounds": True}, "top.inner.rounds is True; it must be of type int"),
        ({"inner__rounds": 2.0}, "top.inner.rounds is 2.0; it must be of type int"),
        ({"inner__rounds": 6}, "top.inner.rounds is 6; red ones have at most 5"),
        ({"inner__share": 1}, "top.inner.share is 1.0; it must lie in (0, 1)"),
        ({"inner__share": math.nan}, "top.inner.share is nan; it must be a number"),
        ({"inner__share": 10**400}, "top.inner.share is inf; it must lie in (0, 1)"),
        ({"inner__color": "blue"}, "top.inner.color: unknown color 'blue'; known: red, green"),
        ({"inner__colour": "blue"}, "top.inner.color: unknown color 'blue'; known: red, green"),
        ({"inner__hue": 1}, "top.inner has unknown keys ['hue']; known: rounds, share, color"),
        ({"inner": 3}, "top.inner is 3; it must be a group of keys"),
        ({"sizes": (1, 0)}, "top.sizes holds 0.0; it must be above 0"),
        ({"sizes": (1, "b")}, "top.sizes[1] is 'b'; it must be of type float"),
        ({"sizes": {"a": 1}}, "top.sizes is {'a': 1}; it must be a tuple"),
        ({"sizes": tuple(range(1, 1002))}, "top.sizes holds 1,001 values; at most 1,000 are allowed"),
        ({"more": ({"rounds": 0, "share": 0.1, "color": "red"},)}, "top.more[0].rounds is 0; it must be at least 1"),
    ],
)
def test_what_is_not_allowed_is_said_in_one_line(changes, line):
    with pytest.raises(UserError) as caught:
        parse(**changes)
    assert str(caught.value) == line


def test_a_missing_key_is_named():
    with pytest.raises(UserError, match=r"top has missing keys \['inner', 'more', 'names'\]"):
        options.build(Outer, {"sizes": (1.0,)}, "top")


def test_an_integer_serves_as_a_float():
    made = parse(sizes=[2])
    assert made.sizes == (2.0,)
    assert type(made.sizes[0]) is float


def test_commas_part_names():
    assert parse(names=("a,b", "c, d")).names == ("a", "b", "c", "d")
    assert parse(names=("a,",)).names == ("a",)


def test_a_former_name_gives_way_to_nothing_but_a_choice():
    """A config file sets the former name in addition to the defaults, which have the new name."""
    assert parse(inner__colour="green").inner.color == "green"
    assert options.former_names(Outer) == {"inner.colour": "inner.color"}
    with pytest.raises(UserError, match=r"top\.inner has colour, the former name of color, beside it; keep color"):
        parse(inner__colour="red", inner__color="green")


def test_a_long_value_is_shown_short():
    deep = []
    for _ in range(10**4):
        deep = [deep]
    for key, value in (
        ("inner__rounds", "x" * 10**6),
        ("inner__rounds", 10**5000),
        ("inner__rounds", deep),
        ("inner__share", "a\nb"),
        ("inner__color", "x" * 10**6),
        ("inner__" + "x" * 10**6, 1),
        ("sizes", ({},) * 10**5),
    ):
        with pytest.raises(UserError) as caught:
            parse(**{key: value})
        assert len(str(caught.value)) < 200
        assert "\n" not in str(caught.value)


def test_every_key_is_described():
    assert {key: item.meaning for key, item in options.described(Outer)} == {
        "names": "Names.",
        "sizes": "Sizes.",
        "inner": "The group.",
        "inner.rounds": "How many.",
        "inner.share": "A share.",
        "inner.color": "A color.",
        "more": "More of them.",
    }
