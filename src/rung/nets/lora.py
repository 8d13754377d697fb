"""LoRA (Hu et al. 2021, arXiv 2106.09685): a frozen matrix W learns through a product of two thin ones, W + s B A.

With DoRA (Liu et al. 2024, arXiv 2402.09353) each row of that sum is scaled to a learned length besides. Settings,
parameters and the file format are peft's (`rung.nets.adapters`): `lora_A` (r, in), `lora_B` (out, r),
`lora_magnitude_vector` (out). The base may be stored in float32, bfloat16, or 8 or 4 bits (`rung.nets.quantized`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from rung.errors import RecipeError, TrainingError, UsageError
from rung.nets.dropout import dropout
from rung.nets.layers import Linear
from rung.nets.quantized import QuantizedLinear

__all__ = [
    "ALL_LINEAR",
    "HEADS",
    "LoraConfig",
    "LoraLinear",
    "adapters_of",
    "add_lora",
    "lora_layers",
    "merge_lora",
    "remove_adapter",
    "set_adapter",
    "unmerge_lora",
]

ALL_LINEAR: Literal["all-linear"] = "all-linear"
HEADS = ("head", "pooling", "lm_head")
"""What stands beside a body in our networks: "all-linear" means the matrices of the body."""
_MERGED_TOLERANCE = 1e-5
_PROBES = 8


@dataclass(frozen=True)
class LoraConfig:
    """An adapter's settings, in peft's names.

    `r` is the rank, and what the adapter adds is scaled by `lora_alpha` / `r` (with `use_rslora` by `lora_alpha` /
    sqrt(r), Kalajdzievski 2023, arXiv 2312.03732). `target_modules` are names of linear layers, whole or their last
    parts, or "all-linear" (the default): every matrix of the body. Adapters on all of them are what it takes to come
    up to full tuning (Dettmers et al. 2023, arXiv 2305.14314, section 4; queries and values alone, as in the first
    paper, fall behind). RecipeError for values that make no sense.
    """

    r: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] | Literal["all-linear"] = ALL_LINEAR
    use_dora: bool = False
    use_rslora: bool = False
    bias: Literal["none"] = "none"

    def __post_init__(self) -> None:
        if self.r < 1:
            raise RecipeError(f"the rank r of LoRA is at least 1, not {self.r}")
        if not self.lora_alpha > 0:
            raise RecipeError(f"lora_alpha is above 0, not {self.lora_alpha}")
        if not 0 <= self.lora_dropout < 1:
            raise RecipeError(f"lora_dropout is at least 0 and below 1, not {self.lora_dropout}")
        if ALL_LINEAR in self.target_modules and len(self.target_modules) == 1:
            object.__setattr__(self, "target_modules", ALL_LINEAR)
        if isinstance(self.target_modules, str) and self.target_modules != ALL_LINEAR:
            raise RecipeError(f"target_modules is a list of names or {ALL_LINEAR!r}, not {self.target_modules!r}")

    @property
    def scaling(self) -> float:
        """What B A is multiplied by."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


class LoraLinear(nn.Module):
    """A linear map with adapters: a drop-in for the `Linear` that it holds as `base_layer`.

    `weight` is the effective matrix, so whoever reads it - an engine that packs weights, a loss that fuses the output
    product - is right with adapters too. One adapter acts at a time, or none. The base is frozen.
    """

    def __init__(self, base_layer: nn.Linear | QuantizedLinear) -> None:
        super().__init__()
        self.base_layer = base_layer.requires_grad_(False)
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.lora_A, self.lora_B = nn.ParameterDict(), nn.ParameterDict()
        self.lora_magnitude_vector = nn.ParameterDict()
        self.configs: dict[str, LoraConfig] = {}
        self.active: str | None = None

    def add(self, name: str, config: LoraConfig, generator: torch.Generator | None) -> None:
        """Add the adapter `name`, which changes nothing yet: B is zero, A uniform as in peft, on the base's device."""
        device = _stored(self.base_layer).device
        limit = 1 / math.sqrt(self.in_features)  # Kaiming's for a slope of sqrt(5), as torch draws linear layers
        drawn = torch.empty(config.r, self.in_features).uniform_(-limit, limit, generator=generator)
        self.lora_A[name] = nn.Parameter(drawn.to(device))
        self.lora_B[name] = nn.Parameter(torch.zeros(self.out_features, config.r, device=device))
        if config.use_dora:
            self.lora_magnitude_vector[name] = nn.Parameter(_base_weight(self.base_layer).float().norm(dim=1))
        self.configs[name] = config

    @property
    def bias(self) -> torch.Tensor | None:
        """The base's bias: adapters have none."""
        return self.base_layer.bias

    @property
    def weight(self) -> torch.Tensor:
        """The effective matrix (out_features, in_features): the base's and the active adapter's; differentiable."""
        base = _base_weight(self.base_layer)
        name = self._acting
        if name is None:
            return base
        a, b, scaling = self.lora_A[name], self.lora_B[name], self.configs[name].scaling
        whole: torch.Tensor = torch.addmm(base.float(), b, a, alpha=scaling)
        if name in self.lora_magnitude_vector:
            whole = whole * (self.lora_magnitude_vector[name] / whole.detach().norm(dim=1))[:, None]
        return whole

    @property
    def _acting(self) -> str | None:
        """The active adapter, where it has a part in this layer."""
        return self.active if self.active in self.configs else None

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name for it
        """Map (..., in_features) to (..., out_features) in the dtype of the input."""
        name = self._acting
        if name is None:
            unchanged: torch.Tensor = self.base_layer(input)
            return unchanged
        config, a, b = self.configs[name], self.lora_A[name], self.lora_B[name]
        is_dora = name in self.lora_magnitude_vector
        bias = None if self.bias is None else self.bias.to(input.dtype)
        inner = None if is_dora else bias
        rate = config.lora_dropout if self.training else 0.0
        if rate:
            dropped = dropout(input, rate, training=True)
            thin = F.linear(F.linear(dropped, a.to(input.dtype)), (b * config.scaling).to(input.dtype))
            out = F.linear(input, _base_weight(self.base_layer).to(input.dtype), inner) + thin
        else:
            out = _LoraProduct.apply(input, a, b, config.scaling, self.base_layer, inner)  # type: ignore[no-untyped-call]
        if is_dora:
            factor = self.lora_magnitude_vector[name] / self._row_norms(name)
            out = out * factor.to(out.dtype)
            out = out if bias is None else out + bias
        return out

    @torch.no_grad()
    def _row_norms(self, name: str) -> torch.Tensor:
        """The norms of the rows of W + s B A, a constant to the gradient (DoRA, section 4.3)."""
        whole = torch.addmm(
            _base_weight(self.base_layer).float(),
            self.lora_B[name],
            self.lora_A[name],
            alpha=self.configs[name].scaling,
        )
        norms: torch.Tensor = whole.norm(dim=1)
        return norms

    @torch.no_grad()
    def merged(self, where: str) -> nn.Linear:
        """A plain layer with the effective matrix in float32: the sum seldom fits what the base is stored in.

        It is asked the same random questions as this layer; TrainingError when the answers differ.
        """
        matrix = self.weight.detach().float().clone()
        layer = Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        layer.weight = nn.Parameter(matrix, requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.detach().clone(), requires_grad=False)
        probes = torch.randn(_PROBES, self.in_features, generator=torch.Generator().manual_seed(0)).to(matrix.device)
        was_training = self.training
        self.eval()
        before, after = self(probes), layer(probes)
        self.train(was_training)
        difference = (after - before).abs().max() / before.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
        if not difference <= _MERGED_TOLERANCE:
            raise TrainingError(
                f"the merged matrix answers differently than base and adapter (by a share of {difference:.2g})",
                where=where,
                hint="use the adapter without merging it",
            )
        return layer


class _LoraProduct(torch.autograd.Function):
    """x W^T + s (x A^T) B^T + bias, with the gradients of x, A and B only.

    Plain autograd adds the two products in an extra pass and keeps what the frozen matrix was cast to; here the thin
    products are accumulated into the wide ones, forward and backward, and the base's matrix is made anew from its
    stored form when it is needed again. What is kept for the backward pass is x, which the neighbours share, and x A^T.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take positional arguments only
        ctx: Any,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
        base: nn.Linear | QuantizedLinear,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        dtype = x.dtype
        thin_in, thin_out = a.to(dtype), (b * scaling).to(dtype)
        rows = x.reshape(-1, x.shape[-1])
        inner = rows @ thin_in.t()
        out = F.linear(rows, _base_weight(base).to(dtype), bias)
        out.addmm_(inner, thin_out.t())
        ctx.save_for_backward(rows, inner, thin_in, thin_out)
        ctx.base, ctx.scaling, ctx.shape, ctx.dtypes = base, scaling, x.shape, (a.dtype, b.dtype)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, inner, thin_in, thin_out = ctx.saved_tensors
        above = gradient.reshape(-1, gradient.shape[-1])
        narrow = above @ thin_out
        a_gradient = (narrow.t() @ rows).to(ctx.dtypes[0]) if ctx.needs_input_grad[1] else None
        # (inner^T g)^T: the other way round takes twice as long in float32.
        b_gradient = (inner.t() @ above).t().to(ctx.dtypes[1]) * ctx.scaling if ctx.needs_input_grad[2] else None
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = above @ _base_weight(ctx.base).to(rows.dtype)
            x_gradient = x_gradient.addmm_(narrow, thin_in).view(ctx.shape)
        return x_gradient, a_gradient, b_gradient, None, None, None


def add_lora(
    net: nn.Module, config: LoraConfig, *, generator: torch.Generator | None, name: str = "default"
) -> tuple[str, ...]:
    """Put the adapter `name` on the layers that `config` targets, and make it the active one.

    Returns the names of those layers within `net`, in order. Only adapters are drawn, from `generator`, layer after
    layer; everything else of `net` stays as trainable as it was, but for the bases of the targeted layers.

    Raises UsageError when nothing is targeted, or an adapter of this name is there already.
    """
    if not name or "." in name:
        raise UsageError(f"{name!r} cannot name an adapter", hint="letters, digits, - and _")
    if name in adapters_of(net):
        raise UsageError(f"there is an adapter named {name!r} already", hint="choose another name")
    linear = dict(_linear_layers(net))
    targets = _targets(list(linear), config)
    tied = {id(module.weight) for module in net.modules() if isinstance(module, nn.Embedding)}
    for path in targets:
        layer = linear[path]
        if not isinstance(layer, LoraLinear):
            if id(layer.weight) in tied:
                raise UsageError(
                    f"{path} is the embedding matrix again, so it cannot have an adapter of its own",
                    hint="target other layers",
                )
            layer = LoraLinear(layer)
            layer.train(net.training)
            net.set_submodule(path, layer)
        layer.add(name, config, generator)
    set_adapter(net, name)
    return targets


def _linear_layers(net: nn.Module) -> Iterator[tuple[str, nn.Linear | QuantizedLinear | LoraLinear]]:
    """Every layer that can have an adapter, or has one already."""
    inside: tuple[str, ...] = ()
    for path, module in net.named_modules():
        if isinstance(module, LoraLinear):
            inside = (*inside, f"{path}.")
            yield path, module
        elif isinstance(module, nn.Linear | QuantizedLinear) and not path.startswith(inside):
            yield path, module


def _targets(paths: list[str], config: LoraConfig) -> tuple[str, ...]:
    wanted = config.target_modules
    if isinstance(wanted, str):
        body = tuple(path for path in paths if path.split(".")[0] not in HEADS)
        if not body:
            raise UsageError("the body of this network has no linear layer for LoRA", hint="tune all its weights")
        return body
    missing = [name for name in wanted if not any(_is_named(path, name) for path in paths)]
    if missing or not wanted:
        there = sorted({path.rsplit(".", 1)[-1] for path in paths})
        raise UsageError(
            f"no linear layer of this network is called {', '.join(missing) or 'nothing'}",
            where="LoRA's target_modules",
            hint=f"there are: {', '.join(there)}; or {ALL_LINEAR}",
        )
    return tuple(path for path in paths if any(_is_named(path, name) for name in wanted))


def _is_named(path: str, name: str) -> bool:
    """peft's rule: the whole name, or its last parts."""
    return path == name or path.endswith(f".{name}")


def lora_layers(net: nn.Module) -> dict[str, LoraLinear]:
    """The layers with adapters, by name."""
    return {path: module for path, module in net.named_modules() if isinstance(module, LoraLinear)}


def adapters_of(net: nn.Module) -> tuple[str, ...]:
    """The names of all adapters on `net`."""
    return tuple(dict.fromkeys(name for layer in lora_layers(net).values() for name in layer.configs))


def set_adapter(net: nn.Module, name: str | None) -> None:
    """Let the adapter `name` act, and be the one that is trained; None: the base as it was. UsageError if unknown."""
    if name is not None and name not in adapters_of(net):
        known = ", ".join(adapters_of(net)) or "none"
        raise UsageError(f"this network has no adapter named {name!r}", hint=f"there are: {known}")
    for layer in lora_layers(net).values():
        layer.active = name
        for table in (layer.lora_A, layer.lora_B, layer.lora_magnitude_vector):
            for key, parameter in table.items():
                parameter.requires_grad_(key == name)


def remove_adapter(net: nn.Module, name: str) -> None:
    """Take the adapter `name` off `net`, if it has one; where it acted, none does."""
    for layer in lora_layers(net).values():
        for table in (layer.lora_A, layer.lora_B, layer.lora_magnitude_vector):
            if name in table:
                del table[name]
        layer.configs.pop(name, None)
        layer.active = None if layer.active == name else layer.active


def merge_lora(net: nn.Module) -> dict[str, LoraLinear]:
    """Replace every layer with adapters by a plain one that computes the same with the active adapter.

    Returns the layers that were replaced, for `unmerge_lora`. TrainingError when a layer would not compute the same;
    `net` is then as it was.
    """
    layers = lora_layers(net)
    plain = {path: layer.merged(path) for path, layer in layers.items()}
    for path, layer in plain.items():
        layer.train(net.training)
        net.set_submodule(path, layer)
    return layers


def unmerge_lora(net: nn.Module, layers: dict[str, LoraLinear]) -> None:
    """Put back what `merge_lora` replaced: base and adapters are the same tensors as before, bit for bit."""
    for path, layer in layers.items():
        net.set_submodule(path, layer)


def _base_weight(base: nn.Linear | QuantizedLinear) -> torch.Tensor:
    return base.weight


def _stored(base: nn.Linear | QuantizedLinear) -> torch.Tensor:
    return base.codes if isinstance(base, QuantizedLinear) else base.weight
