"""The matrices of a step: how a weight is kept, and how a batch of rows is multiplied by it."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F


class Matrix(Protocol):
    """Maps rows (n, in_features) to (n, out_features)."""

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        ...


class Dense:
    """A weight (out_features, in_features) in the dtype to compute in."""

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype) -> None:
        self._weight = weight.to(dtype).contiguous()

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        return F.linear(rows, self._weight)


class Int8:
    """A weight of 8-bit integers with one bfloat16 scale an output channel; rows are bfloat16.

    One row goes through torch's weight-only kernel, which reads a quarter of the bytes that float32 has; it is slower
    than a bfloat16 product from a few rows on, so those are multiplied by the same integers held in bfloat16, which
    holds every integer up to 256. Both accumulate in float32, and differ only in the rounding of the result.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        scale = (weight.float().abs().amax(dim=1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        self._scale = scale.squeeze(1).to(torch.bfloat16)
        integers = (weight.float() / self._scale.float()[:, None]).round().clamp(-127, 127)
        self._integers = integers.to(torch.int8).contiguous()
        self._wide = integers.to(torch.bfloat16).contiguous()

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        if rows.shape[0] == 1:
            return torch._weight_int8pack_mm(rows, self._integers, self._scale)
        return F.linear(rows, self._wide).mul_(self._scale)
