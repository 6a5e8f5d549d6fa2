"""What elementwise operations compute, on samples: NumPy's functions by the names of JAX's primitives.

A sample is a float64 vector. It says what an element is if the layers that write its channel say certain constants, one
for each entry; in the first entry all of them say zero. NaN stands for an unknown number.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import special

# Functions that agree on small numbers may differ on large ones, as ReLU and ReLU6 do.
SCALES = (0.01, 0.3, 3.0, 30.0, 1e3, 1e6)
# How many entries a sample has: one for zero, and of each size so many that both signs are among them.
SIZE = 1 + 16 * len(SCALES)

_FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "and": lambda x, y: np.logical_and(x, y) + 0.0,
    "atan2": np.arctan2,
    "cbrt": np.cbrt,
    "ceil": np.ceil,
    "clamp": lambda low, x, high: np.clip(x, low, high),
    "cos": np.cos,
    "cosh": np.cosh,
    "div": np.divide,
    "eq": lambda x, y: np.equal(x, y) + 0.0,
    "erf": special.erf,
    "erfc": special.erfc,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "floor": np.floor,
    "ge": lambda x, y: np.greater_equal(x, y) + 0.0,
    "gt": lambda x, y: np.greater(x, y) + 0.0,
    "le": lambda x, y: np.less_equal(x, y) + 0.0,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": special.expit,
    "lt": lambda x, y: np.less(x, y) + 0.0,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": lambda x, y: np.not_equal(x, y) + 0.0,
    "neg": np.negative,
    "not": lambda x: np.logical_not(x) + 0.0,
    "or": lambda x, y: np.logical_or(x, y) + 0.0,
    "pow": np.power,
    "rem": np.fmod,
    "round": np.round,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "sub": np.subtract,
    "tan": np.tan,
    "tanh": np.tanh,
}
# Those that pass numbers on as they are.
COPIES = (
    "convert_element_type",
    "copy",
    "pvary",
    "reduce_precision",
    "reshard",
    "sharding_constraint",
    "stop_gradient",
)
KNOWN = frozenset({*_FUNCTIONS, *COPIES, "integer_pow", "select_n", "is_finite"})


def copies(name: str, params: dict[str, Any]) -> bool:
    """Whether an operation passes numbers on as they are. To make them integers or truth values does not.

    Args:
      name: the primitive.
      params: its parameters.
    """
    return name in COPIES and jnp.issubdtype(params.get("new_dtype", jnp.float32), jnp.floating)


def evaluate(name: str, params: dict[str, Any], operands: Sequence[np.ndarray]) -> np.ndarray:
    """Computes an elementwise operation.

    Args:
      name: the primitive, one of `KNOWN`.
      params: its parameters.
      operands: arrays that can be broadcast, such as samples.

    Returns:
      The result, NaN wherever an operand's NaN leaves it unknown.
    """
    if copies(name, params):
        return operands[0]
    if name in COPIES:
        return np.trunc(operands[0]) if jnp.issubdtype(params["new_dtype"], jnp.integer) else _truth(operands[0])
    if name == "select_n":
        return _select(*operands)
    with np.errstate(all="ignore"):
        if name == "integer_pow":
            return np.asarray(operands[0]) ** params["y"]
        if name == "is_finite":
            return np.isfinite(operands[0]) + 0.0
        result = np.asarray(_FUNCTIONS[name](*operands), np.float64)
    unknown = functools.reduce(np.logical_or, [np.isnan(operand) for operand in operands])
    result = np.where(unknown, np.nan, result)
    # Zero times anything is zero; zero divided by anything is not, as that may be zero.
    for factor in operands if name in ("mul", "and") else ():
        result = np.where(factor == 0, 0.0, result)
    return result


def _truth(x: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(x), np.nan, x != 0)


def _select(which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    """The case that each element asks for; where it is unknown which, what all cases agree on."""
    agreed = functools.reduce(lambda x, y: np.where(x == y, x, np.nan), cases)
    result = np.where(np.isnan(which), agreed, np.nan)
    for i, case in enumerate(cases):
        result = np.where(which == i, case, result)
    return result
