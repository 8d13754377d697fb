"""The weights of a target side, fused once for writing token by token: Marian's and BART's, and T5's.

A bias of keys adds the same to all scores of a query, and softmax cancels it; a bias of values passes through the
weighted mean unchanged, into the bias of the output. So only queries keep one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn

from rung.generation.matrices import Matrix, Precision, matrix
from rung.nets.encoder_decoder import Attention, DecoderLayer, EncoderDecoder
from rung.nets.layers import ACTIVATION_FUNCTIONS, RMSNorm
from rung.nets.t5 import T5, Block, FeedForward, T5Attention

Make = Callable[[torch.Tensor], Matrix]


class LayerWeights(Protocol):
    """A layer of the target side; `x` is (rows, hidden)."""

    def queries_keys_values(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, 3 x heads x head_dim)."""
        ...

    def source_queries(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, heads x head_dim)."""
        ...

    def source_keys_values(self, memory: torch.Tensor) -> torch.Tensor:
        """Of `memory` (n, hidden): (n, 2 x heads x head_dim)."""
        ...

    def after_past(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Add what self-attention mixed, (rows, heads x head_dim), to its input."""
        ...

    def after_source(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Add what attention to the source mixed to its input."""
        ...

    def feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's last part."""
        ...


class TargetWeights(Protocol):
    """The target side of one network; `scale` multiplies queries times keys (None: head_dim^-0.5)."""

    @property
    def heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...

    @property
    def scale(self) -> float | None: ...

    @property
    def layers(self) -> Sequence[LayerWeights]: ...

    def embed(self, tokens: torch.Tensor, place: int) -> torch.Tensor:
        """Embed `tokens` (rows,) at a position: (rows, hidden)."""
        ...

    def past_bias(self, place: int) -> torch.Tensor | None:
        """What is added to scores of the keys at 0 ... `place` of a query there: (heads, place + 1)."""
        ...

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """Score the next token: (rows, vocabulary) float32."""
        ...


def target_weights(net: EncoderDecoder | T5, precision: Precision) -> TargetWeights:
    """The target side of `net` for products in `precision`."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    make = partial(matrix, precision=precision)
    with torch.inference_mode():
        return T5Weights(net, make, dtype) if isinstance(net, T5) else MarianWeights(net, make, dtype)


class MarianWeights:
    """Marian's and BART's."""

    scale = None

    def __init__(self, net: EncoderDecoder, make: Make, dtype: torch.dtype) -> None:
        config, side = net.config, net.model.decoder
        scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        activation = ACTIVATION_FUNCTIONS[config.activation_function]
        self.heads = config.decoder_attention_heads
        self.head_dim = config.d_model // self.heads
        self.layers = [_MarianLayer(cast(DecoderLayer, layer), make, dtype, activation) for layer in side.layers]
        self._embedding = (net.model.shared.weight.detach() * scale).to(dtype)
        self._positions = net.positions(side).detach().to(dtype)
        self._norm = None if side.layernorm_embedding is None else _Norm(side.layernorm_embedding, dtype)
        self._head, self._head_bias = make(net.lm_head.weight.detach()), net.lm_head.bias

    def embed(self, tokens: torch.Tensor, place: int) -> torch.Tensor:
        """See `TargetWeights`."""
        x = self._embedding[tokens] + self._positions[place]
        return x if self._norm is None else self._norm(x)

    def past_bias(self, place: int) -> torch.Tensor | None:  # noqa: ARG002 - the interface of all families
        """None: positions are in the embedded tokens."""
        return None

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """See `TargetWeights`."""
        scores = self._head(x).float()
        return scores if self._head_bias is None else scores.add_(self._head_bias)


class _MarianLayer:
    """Norms come after what is added."""

    def __init__(
        self,
        layer: DecoderLayer,
        make: Make,
        dtype: torch.dtype,
        activation: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        own, source = layer.self_attn, layer.encoder_attn
        self._qkv = _Affine(make, dtype, (own.q_proj.weight, own.k_proj.weight, own.v_proj.weight), own.q_proj.bias)
        self._source_q = _Affine(make, dtype, (source.q_proj.weight,), source.q_proj.bias)
        self._source_kv = _Affine(make, dtype, (source.k_proj.weight, source.v_proj.weight), None)
        self._out, self._source_out = _output(own, make, dtype), _output(source, make, dtype)
        self._fc1 = _Affine(make, dtype, (layer.fc1.weight,), layer.fc1.bias)
        self._fc2 = _Affine(make, dtype, (layer.fc2.weight,), layer.fc2.bias)
        norms = (layer.self_attn_layer_norm, layer.encoder_attn_layer_norm, layer.final_layer_norm)
        self._norms = [_Norm(norm, dtype) for norm in norms]
        self._activation = activation

    def queries_keys_values(self, x: torch.Tensor) -> torch.Tensor:
        return self._qkv(x)

    def source_queries(self, x: torch.Tensor) -> torch.Tensor:
        return self._source_q(x)

    def source_keys_values(self, memory: torch.Tensor) -> torch.Tensor:
        return self._source_kv(memory)

    def after_past(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        return self._norms[0](self._out(mixed).add_(x))

    def after_source(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        return self._norms[1](self._source_out(mixed).add_(x))

    def feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._norms[2](self._fc2(self._activation(self._fc1(x))).add_(x))


class T5Weights:
    """T5's."""

    scale = 1.0

    def __init__(self, net: T5, make: Make, dtype: torch.dtype) -> None:
        config, side = net.config, net.decoder
        self.heads, self.head_dim = config.num_heads, config.d_kv
        self.layers = [_T5Layer(block, make, dtype) for block in side.blocks()]
        self._embedding = net.shared.weight.detach().to(dtype)
        self._norm = _RootMeanSquare(side.final_layer_norm, dtype)
        self._head, self._output_scale = make(net.lm_head.weight.detach()), net.output_scale
        distances = torch.arange(-config.n_positions + 1, 1, device=self._embedding.device)
        # (heads, n_positions): what keys in the order of their places get from the query at the last place.
        self._bias = side.numbers_of(distances).detach().to(dtype)

    def embed(self, tokens: torch.Tensor, place: int) -> torch.Tensor:  # noqa: ARG002 - the interface of all families
        """See `TargetWeights`."""
        return self._embedding[tokens]

    def past_bias(self, place: int) -> torch.Tensor | None:
        """See `TargetWeights`."""
        return self._bias[:, self._bias.shape[1] - place - 1 :]

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """See `TargetWeights`."""
        return self._head(self._norm(x) * self._output_scale).float()


class _T5Layer:
    """Norms come before each part."""

    def __init__(self, block: Block, make: Make, dtype: torch.dtype) -> None:
        branches = block.branches()
        own, source, wide = (branch.part for branch in branches)
        own, source, wide = cast(T5Attention, own), cast(T5Attention, source), cast(FeedForward, wide)
        self._qkv = _Affine(make, dtype, (own.q.weight, own.k.weight, own.v.weight), None)
        self._source_q = _Affine(make, dtype, (source.q.weight,), None)
        self._source_kv = _Affine(make, dtype, (source.k.weight, source.v.weight), None)
        self._out, self._source_out = (_Affine(make, dtype, (one.o.weight,), None) for one in (own, source))
        self._into = _Affine(make, dtype, [linear.weight for linear in wide.into()], None)
        self._back = _Affine(make, dtype, (wide.wo.weight,), None)
        self._norms = [_RootMeanSquare(branch.layer_norm, dtype) for branch in branches]
        self._activation, self._is_gated = wide.activation, len(wide.into()) > 1

    def queries_keys_values(self, x: torch.Tensor) -> torch.Tensor:
        return self._qkv(self._norms[0](x))

    def source_queries(self, x: torch.Tensor) -> torch.Tensor:
        return self._source_q(self._norms[1](x))

    def source_keys_values(self, memory: torch.Tensor) -> torch.Tensor:
        return self._source_kv(memory)

    def after_past(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        return self._out(mixed).add_(x)

    def after_source(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        return self._source_out(mixed).add_(x)

    def feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self._into(self._norms[2](x))
        if self._is_gated:
            first, gate = wide.chunk(2, dim=-1)
            return self._back(self._activation(first) * gate).add_(x)
        return self._back(self._activation(wide)).add_(x)


class _Affine:
    """Several matrices as one; `bias` belongs to the first outputs, the others have none."""

    def __init__(
        self, make: Make, dtype: torch.dtype, weights: Sequence[torch.Tensor], bias: torch.Tensor | None
    ) -> None:
        weight = torch.cat([weight.detach() for weight in weights])
        self._matrix = make(weight)
        self._bias = None if bias is None else F.pad(bias.detach(), (0, len(weight) - len(bias))).to(dtype)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        product = self._matrix(rows)
        return product if self._bias is None else product.add_(self._bias)


def _output(attention: Attention, make: Make, dtype: torch.dtype) -> _Affine:
    """The output projection, with what the values' bias becomes behind it."""
    out, values = attention.out_proj, attention.v_proj
    bias = out.bias.float() + out.weight.float() @ values.bias.float()  # the base of an adapter may be in bfloat16
    return _Affine(make, dtype, (out.weight,), bias)


class _Norm:
    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        self._weight, self._bias = norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)
        self._shape, self._eps = norm.normalized_shape, norm.eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self._shape, self._weight, self._bias, self._eps)


class _RootMeanSquare:
    def __init__(self, norm: RMSNorm, dtype: torch.dtype) -> None:
        self._weight, self._eps = norm.weight.detach().to(dtype), norm.eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self._weight.shape, self._weight, self._eps)
