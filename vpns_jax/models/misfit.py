"""Why a file's tensors do not fit a network: a list of all problems, and the likeliest cause in one line."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import flax.linen as nn
import numpy as np

from vpns_jax.errors import LONGEST, UserError, several, shorten
from vpns_jax.models.convnext import ConvNeXt
from vpns_jax.models.deit import DeiT
from vpns_jax.models.head import HEAD
from vpns_jax.models.layouts import Rule
from vpns_jax.models.resnet import ResNet
from vpns_jax.models.vit import ViT

# Names of classifiers in files whose layout has another name for them.
HEADS = re.compile(r"(fc|heads?|classifier|last_linear|linear|head_dist)\.")
NEW_HEAD = "mapping.kind=head, or dont_load=('head',), makes a new one"

DISTILLED = "a distilled ViT, with a second token and head"

# Networks that look like ours but compute something else. Each is recognized by one of its modules.
VARIANTS: dict[type[nn.Module], dict[str, str]] = {
    ViT: {
        "reg_token": "a ViT with registers",
        "register_tokens": "a ViT with registers",
        "dist_token": DISTILLED,
        "distillation_token": DISTILLED,
        "head_dist": DISTILLED,
        "fc_norm": "a ViT that averages its tokens",
        "attn_pool": "a ViT that pools by attention",
        "ls1": "a ViT with layer scale",
        "q_norm": "a ViT with normalized queries and keys",
        "norm_pre": "CLIP's ViT",
        "pre_layrnorm": "CLIP's ViT",
        "relative_position_bias_table": "a ViT with relative positions",
        "pre_logits": "a ViT with a layer before its head",
    },
    ConvNeXt: {"grn": "a ConvNeXt V2"},
    ResNet: {"conv1.0": "a ResNet with a deep stem", "se": "a ResNet with squeeze and excitation"},
}
# How the names of a ViT's tokens end, in all layouts.
TOKENS = {
    "class token": ("cls_token", "class_token", "cls"),
    "distillation token": ("dist_token", "distillation_token"),
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem: its kind, the tensor's name, and a text that says what the file has and what was expected."""

    kind: str
    name: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.text or self.kind}"


# The kinds of problems, and the words for them in the error, such as "3 missing".
MISSING, UNUSED, DTYPE, SHAPE, VALUE = "is missing", "is not used", "dtype", "shape", "value"
COUNTED = {MISSING: "missing", UNUSED: "not used", DTYPE: "wrong dtype", SHAPE: "wrong shape", VALUE: "bad values"}


def mismatches(
    rules: Sequence[Rule], tensors: Mapping[str, np.ndarray], others: Mapping[str, str] | None = None
) -> list[Problem]:
    """Compares the tensors of a file with the rules of a layout.

    Args:
      rules: the rules of the tensors that the network needs.
      tensors: the file's tensors, by the rules' names.
      others: entries of the file that are no tensors: their types by name.

    Returns:
      All problems; none if the tensors are exactly what the rules ask for.
    """
    problems = []
    for rule in rules:
        if rule.name in tensors:
            problems += _compare(rule, tensors[rule.name])
        elif rule.name in (others or {}):
            problems.append(Problem(DTYPE, rule.name, f"is no tensor but of type {(others or {})[rule.name]}"))
        elif not rule.optional:
            problems.append(Problem(MISSING, rule.name))
    used = {rule.name for rule in rules}
    return problems + [Problem(UNUSED, name) for name in tensors if name not in used]


def _compare(rule: Rule, tensor: np.ndarray) -> list[Problem]:
    if tensor.dtype != rule.dtype:
        return [Problem(DTYPE, rule.name, f"has dtype {tensor.dtype}, expected {rule.dtype}")]
    if tensor.shape != rule.fold:
        return [Problem(SHAPE, rule.name, f"has shape {list(tensor.shape)}, expected {list(rule.fold)}")]
    if not np.isfinite(tensor).all():
        text = f"has {np.sum(~np.isfinite(tensor))} values that are NaN or infinite"
        return [Problem(VALUE, rule.name, text)]
    if tensor.dtype == np.int64 and (tensor.min() < 0 or tensor.max() >= 2**31):
        return [Problem(VALUE, rule.name, f"is {tensor}, not a count below 2**31")]
    return []


def error(
    file: Path, name: str, module: type[nn.Module], rules: Sequence[Rule], names: Sequence[str], problems: list[Problem]
) -> UserError:
    """The error about a file that does not fit.

    Args:
      file: the weight file.
      name: the network's name.
      module: the network's class.
      rules: the rules of the tensors that the network needs.
      names: the names of the file's tensors.
      problems: at least one problem.

    Returns:
      An error of one line; its `details` list all problems.
    """
    begin = f"{shorten(str(file), 120)} does not fit {name}: {_cause(module, rules, names, problems)}. "
    for limit in (3, 2, 1, 0):
        kinds = []
        for kind, words in COUNTED.items():
            of_kind = [problem for problem in problems if problem.kind == kind]
            plain = kind in (MISSING, UNUSED)
            shown = several((p.name if plain else str(p) for p in of_kind), limit=limit, width=90)
            kinds += [f"{len(of_kind)} {words}" + f": {shown}" * bool(limit)] * bool(of_kind)
        text = begin + "; ".join(kinds) + " (--verbose lists all)" * (len(problems) > 1)
        if len(text) <= LONGEST:
            break
    return UserError(shorten(text, LONGEST), details=map(str, problems))


def _cause(module: type[nn.Module], rules: Sequence[Rule], names: Sequence[str], problems: list[Problem]) -> str:
    """The likeliest cause, in a few words."""
    wanted = {rule.name for rule in rules}
    variant = _variant(module, wanted, names)
    if variant:
        return f"{variant}; {'load it as deit_*_distilled' if DISTILLED in variant else 'that is not supported'}"
    head = {rule.name for rule in rules if any(path.startswith(f"params/{HEAD}/") for path in rule.paths)}
    if all(p.name in head or (p.kind == UNUSED and HEADS.match(p.name)) for p in problems):
        unused = [p.name for p in problems if p.kind == UNUSED]
        what = f"its head has another name ({several(unused, limit=1)})" if unused else "it has no head"
        if all(p.kind == SHAPE for p in problems):
            what = "its head is for another number of classes"
        elif any(p.kind in (DTYPE, VALUE) for p in problems):
            what = "its head cannot be used"
        return f"{what}: {NEW_HEAD}"
    if all(p.name in head or p.kind == UNUSED for p in problems) and any(p.kind == MISSING for p in problems):
        return f"it has no head, and holds more than that network: {NEW_HEAD}, and model.ignore passes over the rest"
    if 2 * len(wanted.intersection(names)) < len(wanted):
        return "its names are those of another network, or of an unknown layout"
    kinds = {p.kind for p in problems}
    if SHAPE in kinds:
        return "its network has another width, depth or patch size"
    return {
        frozenset({UNUSED}): "it holds more than that network; model.ignore skips tensors that you know are not needed",
        frozenset({MISSING}): "it holds only a part of that network, or a smaller one",
        frozenset({VALUE}): "it is damaged, or its training diverged",
        frozenset({DTYPE}): "it stores other dtypes",
    }.get(frozenset(kinds), "it holds another network")


def _variant(module: type[nn.Module], wanted: set[str], names: Sequence[str]) -> str:
    """The network in the file, if it can be recognized by a module that our networks do not have; "" otherwise."""
    variants = VARIANTS.get(ViT if module is DeiT else module, {})
    variants = {part: what for part, what in variants.items() if module is not DeiT or what != DISTILLED}
    for name in names:
        for part, what in variants.items():
            if name not in wanted and f".{part}." in "." + name.replace("/", ".") + ".":
                return f"it is {what} ({shorten(name, 40)})"
    if issubclass(module, ViT) and 2 * len(wanted.intersection(names)) > len(wanted):
        for what, ends in TOKENS.items():
            token = next((name for name in wanted if name.endswith(ends)), None)
            if token is not None and token not in names:
                return f"it is a ViT without {what} ({token})"
    return ""
