"""An ONNX graph, built node by node: parameters by their names in the network, and the layers that families share.

Written by hand because torch's own exporter takes about a minute a network, needs one more package, and fixes the
length of texts in recurrent networks. Operators are those of opset 17 (2022), the first with LayerNormalization, so
that older runtimes open the file as well: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cached_property
from math import pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike, NDArray
from torch import nn

from rung.errors import RunFolderError
from rung.runfolder import readable_write_errors
from rung.version import __version__

OPSET, IR_VERSION = 17, 8
INPUT_IDS, ATTENTION_MASK = "input_ids", "attention_mask"
MODEL = "model.onnx"
EXTERNAL = "model.onnx_data"  # what optimum calls it
_LARGEST_FILE = 1_900_000_000  # bytes of weights: protobuf, which ONNX files are written in, ends at 2 GiB
_LOWEST = np.finfo(np.float32).min  # for masked scores: finite, so that no softmax over padding alone is 0 / 0

Value = str
"""The name of a value in the graph."""


def require_onnx(where: str) -> Any:
    """The package `onnx`. RunFolderError says how to install it."""
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise RunFolderError(
            "ONNX files are written with the onnx package, which is not installed",
            where=where,
            hint="pip install 'rung[onnx]'",
        ) from error


class Graph:
    """Nodes and weights of one network, whose inputs are `input_ids` and `attention_mask`, (batch, time) int64 both."""

    def __init__(self, net: nn.Module, onnx: Any) -> None:
        self._onnx = onnx
        self._parameter_names = {id(parameter): name for name, parameter in net.named_parameters()}
        self._nodes: list[Any] = []
        self._initializers: dict[str, NDArray[Any]] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}

    # Values -----------------------------------------------------------------------------------------------------------

    def node(self, operator: str, *inputs: Value, **attributes: Any) -> Value:
        """The first output of an operator. An input named "" is left out."""
        output = f"{operator}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def constant(self, values: ArrayLike, dtype: DTypeLike = np.float32) -> Value:
        """A constant; equal ones are stored once."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._store(f"constant_{len(self._constants)}", array)
        return self._constants[key]

    def parameter(self, tensor: torch.Tensor) -> Value:
        """A parameter of the network under its name there; one that is used twice is stored once."""
        name = self._parameter_names[id(tensor)]
        return name if name in self._initializers else self._store(name, _array(tensor))

    def joined(self, name: str, tensors: Sequence[torch.Tensor]) -> Value:
        """Tensors of one shape on a new first axis, stored as `name`: how ONNX keeps both directions of a layer."""
        return self._store(name, np.stack([_array(tensor) for tensor in tensors]))

    def name_of(self, tensor: torch.Tensor) -> str:
        """What the network calls a parameter."""
        return self._parameter_names[id(tensor)]

    def _store(self, name: str, array: NDArray[Any]) -> Value:
        self._initializers[name] = array
        return name

    @cached_property
    def is_real(self) -> Value:
        """(batch, time), true for tokens."""
        return self.node("Cast", ATTENTION_MASK, to=self._onnx.TensorProto.BOOL)

    @cached_property
    def real_share(self) -> Value:
        """(batch, time), 1.0 for tokens and 0.0 for padding."""
        return self.as_float(self.is_real)

    @cached_property
    def places(self) -> Value:
        """(time,) int64: 0, 1, 2, ..."""
        time = self.node("Squeeze", self.node("Shape", INPUT_IDS, start=1, end=2))
        return self.node("Range", self.constant(0, np.int64), time, self.constant(1, np.int64))

    @cached_property
    def lengths(self) -> Value:
        """(batch,) int64: tokens of each text."""
        real = self.node("Cast", self.is_real, to=self._onnx.TensorProto.INT64)
        return self.node("ReduceSum", real, self.constant([1], np.int64), keepdims=0)

    def as_float(self, value: Value) -> Value:
        """In float32."""
        return self.node("Cast", value, to=self._onnx.TensorProto.FLOAT)

    def as_int32(self, value: Value) -> Value:
        """In int32, which a few operators insist on."""
        return self.node("Cast", value, to=self._onnx.TensorProto.INT32)

    # Layers -----------------------------------------------------------------------------------------------------------

    def linear(self, x: Value, layer: nn.Linear) -> Value:
        """(..., in_features) to (..., out_features). The weight is stored transposed, as MatMul takes it."""
        stored = f"{self.name_of(layer.weight)}.transposed"
        product = self.node("MatMul", x, self._store(stored, _array(layer.weight.T)))
        return product if layer.bias is None else self.node("Add", product, self.parameter(layer.bias))

    def layer_norm(self, x: Value, layer: nn.LayerNorm) -> Value:
        """Over the last axis."""
        weight, bias = self.parameter(layer.weight), self.parameter(layer.bias)
        return self.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=layer.eps)

    def activation(self, x: Value, name: str) -> Value:
        """ "relu", "tanh", "gelu" (Hendrycks and Gimpel, arXiv 1606.08415), "gelu_new" (its tanh form) or "identity".

        ONNX has an operator Gelu from opset 20 on; runtimes know the form with Erf as well and fuse it.
        """
        match name:
            case "relu" | "tanh":
                return self.node(name.capitalize(), x)
            case "gelu":
                share = self.node("Erf", self.node("Div", x, self.constant(sqrt(2))))
            case "gelu_new":
                cube = self.node("Mul", self.node("Mul", self.node("Mul", x, x), x), self.constant(0.044715))
                share = self.node("Tanh", self.node("Mul", self.node("Add", x, cube), self.constant(sqrt(2 / pi))))
            case "identity":
                return x
            case _:
                raise NotImplementedError(name)
        both = self.node("Mul", x, self.node("Add", share, self.constant(1.0)))
        return self.node("Mul", both, self.constant(0.5))

    def masked(self, x: Value, allowed: Value) -> Value:
        """`x` where `allowed`, of a shape that fits it, is true; elsewhere the lowest number there is."""
        return self.node("Where", allowed, x, self.constant(_LOWEST))

    def unsqueezed(self, x: Value, *axes: int) -> Value:
        """With new axes of size 1."""
        return self.node("Unsqueeze", x, self.constant(axes, np.int64))

    def reshaped(self, x: Value, shape: Sequence[int]) -> Value:
        """In another shape; 0 stands for an axis as it is, -1 for what is left."""
        return self.node("Reshape", x, self.constant(shape, np.int64))

    def weighted_sum(self, weights: Value, hidden: Value) -> Value:
        """(batch, time) and (batch, time, hidden) to (batch, hidden)."""
        mixed = self.node("MatMul", self.unsqueezed(weights, 1), hidden)
        return self.node("Squeeze", mixed, self.constant([1], np.int64))

    # The file ---------------------------------------------------------------------------------------------------------

    def write(self, folder: Path, value: Value, name: str, shape: Sequence[str | int]) -> None:
        """Write `model.onnx`, whose one output, `value`, is called `name`; its `shape` names the axes that vary.

        Weights that no single file can hold lie beside it in `model.onnx_data`. Whatever the format forbids is an error
        of the package `onnx`: the file is checked whole, shapes and types of every node included.
        """
        onnx = self._onnx
        helper, types = onnx.helper, onnx.TensorProto
        inputs = [
            helper.make_tensor_value_info(given, types.INT64, ["batch", "time"])
            for given in (INPUT_IDS, ATTENTION_MASK)
        ]
        nodes = [*self._nodes, helper.make_node("Identity", [value], [name], name)]
        weights = [onnx.numpy_helper.from_array(array, key) for key, array in self._initializers.items()]
        output = helper.make_tensor_value_info(name, types.FLOAT, shape)
        model = helper.make_model(
            helper.make_graph(nodes, "rung", inputs, [output], weights),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="rung",
            producer_version=__version__,
        )
        outside = sum(array.nbytes for array in self._initializers.values()) > _LARGEST_FILE
        path = folder / MODEL
        with readable_write_errors(path):
            onnx.save_model(model, path, save_as_external_data=outside, location=EXTERNAL if outside else None)
        onnx.checker.check_model(path, full_check=True)


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().float().numpy())
