"""The matrices of a step: how a weight is kept, and how a batch of rows is multiplied by it."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
import torch.nn.functional as F

Precision = Literal["fp32", "bf16", "int8"]
"""What products are computed in. int8: weights of 8 bits with a scale an output channel, activations in bfloat16."""

ROW_MULTIPLE = 16
"""Products gave the same bits for a row, whatever else was in the batch, once rows were padded to this multiple."""


class Matrix(Protocol):
    """Maps rows (n, in_features) to (n, out_features)."""

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        ...


def dtype_of(precision: Precision) -> torch.dtype:
    """What activations are in."""
    return torch.float32 if precision == "fp32" else torch.bfloat16


def matrix(weight: torch.Tensor, precision: Precision, bias: torch.Tensor | None = None) -> Matrix:
    """Keep a weight (out_features, in_features) and its bias in the form that multiplies fastest where they are."""
    added = None if bias is None else bias.detach().to(dtype_of(precision))
    if precision == "int8":
        return Int8(weight, added)
    if precision == "bf16":
        return _bfloat16(weight, added)
    return Dense(weight.float(), added)


class MakeMatrix(Protocol):
    """`matrix` of one precision."""

    def __call__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Matrix:
        """Keep a weight."""
        ...


def matrices_of(precision: Precision) -> MakeMatrix:
    """What keeps weights in this precision."""
    return lambda weight, bias=None: matrix(weight, precision, bias)


class Dense:
    """A weight as it is."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight.contiguous(), bias

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        return F.linear(rows, self._weight, self._bias)


# The overload itself: to find it anew costs 2 us a call, of which a token makes 25.
_linear = torch.ops.mkldnn._linear_pointwise.default


class Packed:
    """A bfloat16 weight in the layout that oneDNN chooses for 16 rows, as torch's own compiler keeps frozen weights.

    All 25 products of a 12M decoder, one thread of a Xeon with AMX: 3.5 ms for one row and 3.4 ms for 16, where
    `F.linear` takes 6.8 and 7.0 ms; 13.7 against 17.6 ms for the 400 rows of a prompt. A layout chosen for one row is
    no faster than `F.linear`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._bias = bias
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(torch.bfloat16).contiguous(), ROW_MULTIPLE)

    @staticmethod
    def available(device: torch.device) -> bool:
        """Whether oneDNN multiplies bfloat16 here."""
        return (
            device.type == "cpu"
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        )

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        product: torch.Tensor = _linear(rows, self._weight, self._bias, "none", [], "")
        return product


class Int8:
    """A weight of 8-bit integers with one bfloat16 scale an output channel; rows are bfloat16.

    On a CPU, one row goes through torch's weight-only kernel: 1.5 ms where `Packed` takes 3.5. It multiplies row by
    row, so more rows are multiplied by the same integers in bfloat16, which holds each of them exactly. Both add up in
    float32 and differ only in when the sum is rounded. Quality: a small trained model went from
    1.7542 bits per byte in float32 to 1.7545 in bfloat16 and 1.7544 in int8 (`bench/generation.py --quality`).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._bias = bias
        scale = (weight.float().abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.bfloat16).tiny)
        self._scale = scale.to(torch.bfloat16)
        integers = (weight.float() / self._scale.float()[:, None]).round().clamp(-127, 127)
        self._integers = integers.to(torch.int8).contiguous() if weight.device.type == "cpu" else None
        self._wide = _bfloat16(integers, None)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        if self._integers is not None and len(rows) == 1:
            product = torch._weight_int8pack_mm(rows, self._integers, self._scale)
        else:
            product = self._wide(rows).mul_(self._scale)
        return product if self._bias is None else product.add_(self._bias)


def _bfloat16(weight: torch.Tensor, bias: torch.Tensor | None) -> Matrix:
    return Packed(weight, bias) if Packed.available(weight.device) else Dense(weight.to(torch.bfloat16), bias)
