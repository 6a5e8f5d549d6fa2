"""Builds an ONNX graph: nodes in order, and arrays; both have names."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# The first operator set with layer normalization, and the first file format with that operator set. Older runtimes
# refuse newer ones.
OPSET, IR_VERSION = 17, 8


class Graph:
    """Nodes and arrays in the order in which they are added. Each method returns the name of what it computes."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._arrays: list[onnx.TensorProto] = []

    def constant(self, array: Any) -> str:
        """Adds an array.

        Args:
          array: float64 is stored as float32, all others as they are.
        """
        array = np.asarray(array, order="C")
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        name = f"c{len(self._arrays)}"
        self._arrays.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds an operation with one output.

        Args:
          kind: its name in ONNX, such as "Relu".
          *inputs: the names of its inputs.
          **attributes: its attributes.
        """
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{kind}_{name}", **attributes))
        return name

    def conv(
        self, x: str, kernel: np.ndarray, bias: np.ndarray, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> str:
        """Adds a convolution.

        Args:
          x: the input, `[b, c, h, w]`.
          kernel: `[k, k, c / groups, o]`; c and o are at least 1.
          bias: `[o]`.
          stride: step in both directions.
          padding: width of the zeros on each of the four sides.
          groups: into how many groups the channels are split; each group is convolved alone.
        """
        weights = self.constant(kernel.transpose(3, 2, 0, 1))
        geometry = {"kernel_shape": kernel.shape[:2], "strides": [stride] * 2, "pads": [padding] * 4, "group": groups}
        return self.node("Conv", x, weights, self.constant(bias), **geometry)

    def dense(self, x: str, kernel: np.ndarray, bias: np.ndarray) -> str:
        """Adds a dense layer.

        Args:
          x: the input, `[..., c]`.
          kernel: `[c, o]`; c is at least 1.
          bias: `[o]`.
        """
        return self.node("Add", self.node("MatMul", x, self.constant(kernel)), self.constant(bias))

    def max_pool(self, x: str, *, window: int, stride: int, padding: int = 0) -> str:
        """Adds maximum pooling; padding is never the maximum.

        Args:
          x: the input, `[b, c, h, w]`.
          window: side of a window.
          stride: step in both directions.
          padding: width of the padding on each of the four sides.
        """
        return self.node("MaxPool", x, kernel_shape=[window] * 2, strides=[stride] * 2, pads=[padding] * 4)

    def gelu(self, x: str) -> str:
        """Adds the exact GELU, x Phi(x), written in the way that runtimes recognize and fuse.

        Args:
          x: the input.
        """
        erf = self.node("Erf", self.node("Div", x, self.constant(np.sqrt(2.0))))
        product = self.node("Mul", x, self.node("Add", erf, self.constant(1.0)))
        return self.node("Mul", product, self.constant(0.5))

    def model(
        self, image: onnx.ValueInfoProto, outputs: Mapping[str, str], classes: int, metadata: Mapping[str, str]
    ) -> onnx.ModelProto:
        """Finishes the graph, and checks it.

        Args:
          image: the graph's input; its first axis is "batch".
          outputs: the names of results by the output names that they get; each is float32 `[batch, classes]`.
          classes: the number of classes.
          metadata: text by key, for readers of the file.

        Returns:
          The model.
        """
        renamed = [helper.make_node("Identity", [value], [name]) for name, value in outputs.items()]
        infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", classes]) for name in outputs]
        graph = helper.make_graph([*self._nodes, *renamed], "vpns_jax", [image], infos, self._arrays)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="vpns_jax", ir_version=IR_VERSION
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model
