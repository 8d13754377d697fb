"""Frozen matrices of 8 or 4 bits, turned back into numbers whenever they are multiplied by.

They serve LoRA, whose base never changes (QLoRA: Dettmers et al. 2023, arXiv 2305.14314): the weights take a half or
a quarter of bfloat16's memory, and every product pays for making them anew.

    int8   one integer in -127..127 a weight, one scale an output channel
    int4   the 4-bit NormalFloat of QLoRA (section 3; its 16 values are quantiles of a normal distribution), two a
           byte, one scale for each 32 inputs
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from rung.errors import UsageError
from rung.nets.layers import Linear

QuantizedPrecision = Literal["int8", "int4"]

GROUP = 32
"""Inputs that share a scale in int4."""
# Values of NF4, appendix E of the paper: quantiles of the standard normal, scaled to -1..1, with an exact zero.
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


class QuantizedLinear(nn.Module):
    """A frozen linear map whose matrix (out_features, in_features) is stored in 8 or 4 bits; its bias as it was.

    `weight` is the matrix that it computes with, made anew at every look.
    """

    codes: torch.Tensor
    scales: torch.Tensor

    def __init__(self, layer: nn.Linear, precision: QuantizedPrecision) -> None:
        """Quantise `layer`. UsageError when int4 cannot group its inputs."""
        super().__init__()
        self.in_features, self.out_features, self.precision = layer.in_features, layer.out_features, precision
        quantise = _to_int8 if precision == "int8" else _to_int4
        codes, scales = quantise(layer.weight.detach().float())
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach(), requires_grad=False)

    @property
    def weight(self) -> torch.Tensor:
        """The matrix in float32."""
        return self.weight_in(torch.float32)

    def weight_in(self, dtype: torch.dtype) -> torch.Tensor:
        """The matrix in `dtype`."""
        if self.precision == "int8":
            return self.codes.to(dtype).mul_(self.scales.to(dtype)[:, None])
        pairs = _pairs(self.codes.device, dtype)
        values = F.embedding(self.codes.int(), pairs).view(self.out_features, -1, GROUP)
        return values.mul_(self.scales.to(dtype)[:, :, None]).view(self.out_features, self.in_features)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name for it
        """Map (..., in_features) to (..., out_features) in the dtype of the input."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        out: torch.Tensor = _Product.apply(input, self, bias)  # type: ignore[no-untyped-call]
        return out


class _Product(torch.autograd.Function):
    """x W^T + bias, with the gradient of x alone; the matrix is not kept for it but made again."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: QuantizedLinear, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight_in(x.dtype), bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient @ ctx.layer.weight_in(gradient.dtype), None, None


def quantize_layers(net: nn.Module, precision: QuantizedPrecision, *, kept: tuple[str, ...]) -> tuple[str, ...]:
    """Replace the linear layers of `net` by quantised ones, but for those under the children called `kept`.

    Returns the names of those replaced. Embeddings, norms and biases stay as they are.
    """
    layers = {
        path: module
        for path, module in net.named_modules()
        if isinstance(module, nn.Linear) and path.split(".")[0] not in kept
    }
    for path, layer in layers.items():
        net.set_submodule(path, QuantizedLinear(layer, precision))
    return tuple(layers)


def restore_layers(net: nn.Module) -> None:
    """Replace the quantised layers of `net` by plain ones with the matrices that they computed with, in float32."""
    layers = {path: module for path, module in net.named_modules() if isinstance(module, QuantizedLinear)}
    for path, layer in layers.items():
        plain = Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight = nn.Parameter(layer.weight, requires_grad=False)
        if layer.bias is not None:
            plain.bias = layer.bias
        plain.train(net.training)
        net.set_submodule(path, plain)


def _to_int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight / scales[:, None]).round().to(torch.int8), scales


def _to_int4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = weight.shape
    if columns % GROUP:
        raise UsageError(
            f"a matrix of {columns} inputs cannot be stored in groups of {GROUP}", hint="use int8 for this base"
        )
    groups = weight.view(rows, -1, GROUP)
    scales = groups.abs().amax(dim=2).clamp(min=torch.finfo(torch.float32).tiny)
    table = torch.tensor(NF4, device=weight.device)
    borders = (table[1:] + table[:-1]) / 2
    nearest = torch.bucketize(groups / scales[:, :, None], borders).to(torch.uint8).view(rows, -1, 2)
    return nearest[:, :, 0] * 16 + nearest[:, :, 1], scales


def _pairs(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The two values that each byte stands for, (256, 2)."""
    table = torch.tensor(NF4, device=device, dtype=dtype)
    return torch.stack((table.repeat_interleave(16), table.repeat(16)), dim=1)
