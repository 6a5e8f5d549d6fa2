"""What the options of networks may be: their values, and the widths of single layers."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax.errors import UserError, several, short
from vpns_jax.models.coupling import channels, has_table
from vpns_jax.models.shrinking import least_width


@dataclasses.dataclass(frozen=True)
class Option:
    """The allowed values of an option: a test, and its description in words."""

    accepts: Callable[[Any], bool]
    allowed: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# The dtypes that networks compute in. Smaller floats lack the range or the operations. JAX silently turns float64 into
# float32, unless JAX_ENABLE_X64 is set.
DTYPES = ("float32", "bfloat16", "float16")
# Outside this range a ResNet-18 has no channel left, or 3 billion weights.
LEAST_WIDTH, MOST_WIDTH = 1 / 64, 16
# The most outputs of a layer. The widest layers are VGG's dense layers at 16 times their width.
MOST_OUTPUTS = 65536


def _is_dtype(value: Any) -> bool:
    if isinstance(value, tuple | list | dict):
        return False
    try:
        name = jnp.dtype(value).name
    # NumPy raises many kinds of errors for strings and objects that are no dtypes.
    except Exception:
        return False
    return name in DTYPES or (name == "float64" and jax.dtypes.canonicalize_dtype(name).name == name)


OPTIONS: dict[str, Option] = {
    "width": Option(
        lambda v: _is_number(v) and LEAST_WIDTH <= v <= MOST_WIDTH,
        f"a number from 1/64 to {MOST_WIDTH}: outside, the network has no channel left or billions of weights",
    ),
    "stem": Option(lambda v: v in ("imagenet", "small"), "'imagenet' or 'small'"),
    "dropout": Option(lambda v: _is_number(v) and 0 <= v < 1, "a number in [0, 1)"),
    "widths": Option(
        lambda v: isinstance(v, Mapping) and all(isinstance(n, int) and not isinstance(n, bool) for n in v.values()),
        "a mapping from layers, such as layer1_0/conv1, to their numbers of outputs",
    ),
    "dtype": Option(_is_dtype, f"one of {', '.join(DTYPES)} (float64 only where JAX_ENABLE_X64 is set)"),
}


def check_option(name: str, key: str, value: Any) -> None:
    """Checks the value of an option of `OPTIONS`.

    Args:
      name: the network's name, for the error.
      key: the option.
      value: the value.

    Raises:
      UserError: the value is not allowed.
    """
    if not OPTIONS[key].accepts(value):
        raise UserError(f"{name}: {key} must be {OPTIONS[key].allowed}, got {short(value)}")


def check_widths(name: str, model: nn.Module, widths: Mapping[str, int]) -> None:
    """Checks the widths of single layers.

    Args:
      name: the network's name, for the error.
      model: the network.
      widths: the number of outputs by layer.

    Raises:
      UserError: a layer's width cannot be chosen, or cannot have this value.
    """
    if not has_table(model):
        # Its channels depend on its images, so layers and widths are compared with the weights when those are read.
        wrong = next((layer for layer, outputs in widths.items() if not 1 <= outputs <= MOST_OUTPUTS), None)
        if wrong is not None:
            raise UserError(
                f"{name}: widths has {widths[wrong]} outputs of {short(wrong)}; it takes 1 ... {MOST_OUTPUTS}"
            )
        return
    table = {each.name.removesuffix("/kernel"): each for each in channels(model) if not each.fixed}
    for layer, outputs in widths.items():
        if layer not in table:
            raise UserError(f"{name}: widths names {short(layer)}; layers with widths are {several(table)}")
        least, step = least_width(table[layer]), table[layer].width
        if not least <= outputs <= MOST_OUTPUTS or outputs % step:
            of = f", a multiple of {step}" if step > 1 else ""
            raise UserError(f"{name}: widths has {outputs} outputs of {layer}; it takes {least} ... {MOST_OUTPUTS}{of}")
