"""Follows channels through a traced program, operation by operation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vpns_jax.models.tracing import contraction, kernels, moving, places, pointwise, reducing, stacking
from vpns_jax.models.tracing.joining import pointwise_value
from vpns_jax.models.tracing.scene import Scene, lost
from vpns_jax.models.tracing.spaces import Spaces
from vpns_jax.models.tracing.values import Value, fixed_number, literal

# Operations with one operand that only moves or is summed up.
_SINGLE: dict[str, Callable[[Scene, Value, tuple[int, ...]], Value]] = {
    "reshape": moving.reshape,
    "squeeze": moving.reshape,
    "expand_dims": moving.reshape,
    "transpose": moving.transpose,
    "broadcast_in_dim": moving.broadcast,
    "slice": moving.cut,
    "tile": stacking.tile,
    "rev": moving.reverse,
    "reduce_sum": reducing.reduce,
    "reduce_max": reducing.reduce,
    "reduce_min": reducing.reduce,
    "reduce_prod": reducing.reduce,
    "reduce_window_max": reducing.window,
    "reduce_window_min": reducing.window,
    "reduce_window_sum": reducing.window,
}
_SEVERAL: dict[str, Callable[..., Value]] = {
    "dot_general": contraction.dot,
    "conv_general_dilated": kernels.convolution,
    "pad": stacking.pad,
}
_MANY: dict[str, Callable[[Scene, Sequence[Value], tuple[int, ...]], Value]] = {
    "concatenate": stacking.concatenate,
    "stack": stacking.stack,
}
# Operations that are programs themselves, with the parameter that holds it.
_CALLS = ("jaxpr", "call_jaxpr")
_CALLING = ("jit", "closed_call", "remat2", "custom_jvp_call", "custom_vjp_call")


class Program:
    """Follows channels through the programs of one network.

    Attributes:
      spaces: what it finds.
    """

    def __init__(self, samples: Mapping[str, np.ndarray], dims: Mapping[str, int], spaces: Spaces) -> None:
        self.spaces = spaces
        self._samples, self._dims = samples, dims

    def follow(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Value], layer: str = "") -> list[Value]:
        """Follows channels through a program.

        Args:
          jaxpr: the program.
          constants: its constants.
          inputs: its arguments.
          layer: the layer that it belongs to; "" for the whole network.

        Returns:
          Its results.
        """
        known: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        known |= {var: literal(np.asarray(number)) for var, number in zip(jaxpr.constvars, constants, strict=True)}

        def value(atom: Any) -> Value:
            return literal(np.asarray(atom.val)) if hasattr(atom, "val") else known[atom]

        for equation in jaxpr.eqns:
            results = self._apply(equation, [value(atom) for atom in equation.invars], layer)
            known |= dict(zip(equation.outvars, results, strict=True))
        return [value(atom) for atom in jaxpr.outvars]

    def _apply(self, equation: Any, operands: list[Value], outer: str) -> list[Value]:
        """The results of one operation."""
        name, params = equation.primitive.name, equation.params
        inside = str(equation.source_info.name_stack)
        layer = inside if inside.startswith(outer) else f"{outer}/{inside}" if inside else outer
        shapes = [tuple(getattr(variable.aval, "shape", ())) for variable in equation.outvars]
        if name in _CALLING:
            body = next(params[key] for key in _CALLS if key in params)
            closed = body if hasattr(body, "jaxpr") else None
            program, constants = (closed.jaxpr, closed.consts) if closed else (body, [])
            return self.follow(program, constants, operands, layer)
        # The first name is that of the network's class.
        scene = Scene(self.spaces, self._samples, self._dims, name, params, layer.partition("/")[2])
        if name == "optimization_barrier":
            return operands
        if name == "split":
            return moving.split(scene, operands[0], shapes)
        if len(shapes) == 1:
            return [_result(scene, operands, shapes[0])]
        return [lost(scene, operands, shape) for shape in shapes]


def _result(scene: Scene, operands: list[Value], shape: tuple[int, ...]) -> Value:
    """The result of an operation that is no program."""
    if scene.name in _SINGLE and len(operands) == 1:
        return _SINGLE[scene.name](scene, operands[0], shape)
    if scene.name in _SEVERAL:
        return _SEVERAL[scene.name](scene, *operands, shape)
    if scene.name in _MANY:
        return _MANY[scene.name](scene, operands, shape)
    if scene.name in pointwise.KNOWN:
        return pointwise_value(scene, operands, shape)
    if scene.name == "iota":
        return fixed_number(shape, places.along(scene.params["dimension"], shape).astype(np.float64))
    return lost(scene, operands, shape)
