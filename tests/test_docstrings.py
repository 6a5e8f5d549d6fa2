"""Docstrings of public functions are complete; CONTRIBUTING.md states the rule.

ruff checks that a section "Args" names every argument. It does not ask for the section, nor for "Raises".
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path for folder in ("vpns_jax", "experiments", "benchmarks", "configs") for path in (ROOT / folder).rglob("*.py")
)
# A docstring of one line may leave out the section "Args" for this many arguments.
FEW = 2

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(tree: ast.Module | ast.ClassDef) -> Iterator[Function]:
    """Functions of a module and methods of its classes whose names do not begin with an underscore."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)


def arguments_of(function: Function) -> list[str]:
    """The names of a function's arguments; `self`, `cls`, `_` and names that begin with `_` do not count."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    names = [argument.arg for argument in named if argument is not None]
    return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]


def raises_user_error(function: Function) -> bool:
    """Whether a function's own body has a `raise UserError(...)`."""
    return any(
        isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) == "UserError"
        for node in ast.walk(function)
    )


def faults(function: Function) -> list[str]:
    """What a function's docstring lacks."""
    docstring = ast.get_docstring(function)
    if docstring is None or any(ast.unparse(decorator) == "override" for decorator in function.decorator_list):
        return []
    names = arguments_of(function)
    long = "\n" in docstring or len(names) > FEW
    sections = re.split(r"(?m)^(Args|Returns|Yields|Raises|Attributes):$", docstring)
    described = dict(zip(sections[1::2], sections[2::2], strict=True))
    lacking = [name for name in names if not re.search(rf"(?m)^  \*{{0,2}}{name}: \S", described.get("Args", ""))]
    lacks = [f"argument {name} is not described" for name in lacking if long]
    if raises_user_error(function) and "UserError" not in described.get("Raises", ""):
        lacks.append("section Raises does not name UserError")
    return lacks


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_are_complete(path):
    tree = ast.parse(path.read_text())
    lacking = [f"{f.name} (line {f.lineno}): {fault}" for f in public_functions(tree) for fault in faults(f)]
    assert not lacking, "\n".join(lacking)


@pytest.mark.parametrize(
    ("source", "lacks"),
    [
        ('def f(a, b):\n    """One line."""', []),
        ('def f(a, b, c):\n    """One line."""', ["a", "b", "c"]),
        ('def f(a, *, b):\n    """One line.\n\n    Args:\n      a: it.\n    """', ["b"]),
        (
            'def f(a, *b, **c):\n    """One line.\n\n    Args:\n      a: x.\n      *b: x.\n      **c: x.\n    """',
            [],
        ),
        ('def f(self, _a):\n    """One line.\n\n    More.\n    """', []),
        ('def f(a):\n    """One line."""\n    raise UserError("no")', ["UserError"]),
        ('def f():\n    """One line.\n\n    Raises:\n      UserError: always.\n    """\n    raise UserError("no")', []),
    ],
)
def test_the_rule_finds_what_is_missing(source, lacks):
    (function,) = public_functions(ast.parse(source))
    missing = faults(function)
    assert len(missing) == len(lacks)
    assert all(name in fault for name, fault in zip(lacks, missing, strict=True))
