"""A target one token at a time, many beams at once: what an encoder-decoder keeps from one step to the next.

A row is one beam of one source. All targets of a batch start together, so every row is at the same position. What
belongs to a source - its memory, its keys and values - is kept once, however many beams look at it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn

from rung.errors import GenerationError
from rung.generation.matrices import Matrix, Precision, matrix
from rung.nets.encoder_decoder import ACTIVATIONS, Attention, DecoderLayer, EncoderDecoder, added_mask
from rung.nets.recurrent_encoder_decoder import RecurrentEncoderDecoder

_BLOCK = 16  # steps for which room is made at a time


class TargetSteps(Protocol):
    """The steps of a batch of targets. `open` first, then `step`, with `select` and `keep` in between as needed."""

    def open(self, sources: Sequence[Sequence[int]], beams: int) -> None:
        """Read `sources` and make `beams` empty targets of each."""
        ...

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Take the next token of each beam (sources, beams) and return the scores (sources x beams, vocabulary) of the
        one after it, in float32.
        """
        ...

    def select(self, parents: torch.Tensor) -> None:
        """Go on from other beams: beam b of source s becomes what beam `parents[s, b]` of that source was."""
        ...

    def keep(self, sources: torch.Tensor) -> None:
        """Go on with these `sources` (indices) alone."""
        ...


def target_steps(net: EncoderDecoder | RecurrentEncoderDecoder, precision: Precision) -> TargetSteps:
    """The steps of either kind of network. Only the Transformer is offered in other precisions than fp32."""
    if isinstance(net, EncoderDecoder):
        return TransformerSteps(net, precision)
    if precision != "fp32":
        raise GenerationError(f"an LSTM writes in fp32, not in {precision}")
    return RecurrentSteps(net)


def not_finite() -> GenerationError:
    """What is raised when a network's scores are NaN."""
    return GenerationError(
        "the network's scores are not finite", hint="the weights may be damaged: try another checkpoint"
    )


def _padded(sources: Sequence[Sequence[int]], padding: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """`sources` and their mask, (sources, longest) both."""
    longest = max(map(len, sources))
    ids = torch.tensor([[*source, *[padding] * (longest - len(source))] for source in sources], device=device)
    lengths = torch.tensor([len(source) for source in sources], device=device)
    return ids, torch.arange(longest, device=device) < lengths[:, None]


class TransformerSteps:
    """The Transformer's weights fused once, and the keys and values of its targets.

    Beams never copy keys and values when they are chosen anew. A step writes those of all beams of a source side by
    side, and a mask says which of them are a beam's ancestors: one product for all beams of a source reads each key
    once, where a copy would have read and written it before.

    A bias of keys adds the same to all scores of a query, and softmax cancels it; a bias of values passes through the
    weighted mean unchanged, into the bias of the output. So only queries keep one.
    """

    def __init__(self, net: EncoderDecoder, precision: Precision) -> None:
        self._net = net
        config = net.config
        self._dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        self._precision = precision
        make = partial(matrix, precision=precision)
        scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        with torch.inference_mode():
            layers = cast(Sequence[DecoderLayer], net.model.decoder.layers)
            self._layers = [_Layer(layer, make, self._dtype) for layer in layers]
            self._embedding = (net.model.shared.weight.detach() * scale).to(self._dtype)
            self._positions = net.positions.to(self._dtype)
            self._head = make(net.lm_head.weight.detach())
            self._head_bias = net.lm_head.bias
        self._activation = ACTIVATIONS[config.activation_function]
        self._heads = config.decoder_attention_heads

    def open(self, sources: Sequence[Sequence[int]], beams: int) -> None:
        """Read `sources`: their keys and values for each layer are computed here, once."""
        device = self._embedding.device
        ids, mask = _padded(sources, self._net.config.pad_token_id, device)
        lower = self._dtype != torch.float32
        computing = torch.autocast(device.type, self._dtype) if lower else contextlib.nullcontext()
        with computing:
            memory = self._net.encode(ids, mask).to(self._dtype)
        self._mask = None if bool(mask.all()) else added_mask(mask, self._dtype)
        rows = memory.flatten(0, 1)
        self._source_keys, self._source_values = zip(
            *(self._by_source(layer.source_keys_values(rows), len(sources)) for layer in self._layers), strict=True
        )
        self._beams, self._time = beams, 0
        size = memory.shape[-1] // self._heads
        # Keys and values of the targets: (layers x 2, sources, heads, time x beams, head_dim).
        self._past = torch.zeros(2 * len(self._layers), len(sources), self._heads, 0, size, dtype=self._dtype).to(
            device
        )
        # What each beam may see of it: (sources, beams, time, beams).
        self._seen = torch.zeros(len(sources), beams, 0, beams, dtype=self._dtype, device=device)
        self._own = torch.full((beams, beams), -torch.inf, dtype=self._dtype, device=device).fill_diagonal_(0)

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """See `TargetSteps`."""
        if self._time * self._beams == self._past.shape[3]:
            self._past = F.pad(self._past, (0, 0, 0, _BLOCK * self._beams))
            self._seen = F.pad(self._seen, (0, 0, 0, _BLOCK))
        sources, start, end = len(tokens), self._time * self._beams, (self._time + 1) * self._beams
        self._seen[:, :, self._time] = self._own
        seen = self._seen[:, :, : self._time + 1].flatten(2)[:, None] if self._beams > 1 else None
        x = self._embedding[tokens.flatten()] + self._positions[self._time]
        for number, layer in enumerate(self._layers):
            q, k, v = layer.queries_keys_values(x).view(sources, self._beams, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            keys, values = self._past[2 * number], self._past[2 * number + 1]
            keys[:, :, start:end], values[:, :, start:end] = k, v
            mixed = F.scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end], attn_mask=seen)
            x = layer.after_past(x, self._by_row(mixed))
            q = layer.source_queries(x).view(sources, self._beams, self._heads, -1).transpose(1, 2)
            keys, values = self._source_keys[number], self._source_values[number]
            mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=self._mask)
            x = layer.feed_forward(layer.after_source(x, self._by_row(mixed)), self._activation)
        self._time += 1
        scores = self._head(x).float()
        return scores if self._head_bias is None else scores.add_(self._head_bias)

    def select(self, parents: torch.Tensor) -> None:
        """Only the mask moves."""
        self._seen = self._seen.gather(1, parents[:, :, None, None].expand_as(self._seen))

    def keep(self, sources: torch.Tensor) -> None:
        """See `TargetSteps`."""
        self._past, self._seen = self._past[:, sources], self._seen[sources]
        self._source_keys = tuple(keys[sources] for keys in self._source_keys)
        self._source_values = tuple(values[sources] for values in self._source_values)
        self._mask = None if self._mask is None else self._mask[sources]

    def _by_source(self, keys_values: torch.Tensor, sources: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = keys_values.view(sources, -1, 2, self._heads, keys_values.shape[-1] // 2 // self._heads).unbind(
            2
        )
        return keys.transpose(1, 2).contiguous(), values.transpose(1, 2).contiguous()

    def _by_row(self, mixed: torch.Tensor) -> torch.Tensor:
        """(sources, heads, beams, head_dim) to (sources x beams, hidden)."""
        return mixed.transpose(1, 2).reshape(-1, mixed.shape[1] * mixed.shape[3])


class _Layer:
    """A decoder layer's weights, fused; `x` is (rows, hidden)."""

    def __init__(self, layer: DecoderLayer, make: Callable[[torch.Tensor], Matrix], dtype: torch.dtype) -> None:
        own, source = layer.self_attn, layer.encoder_attn
        self._qkv = _Affine(make, dtype, (own.q_proj.weight, own.k_proj.weight, own.v_proj.weight), own.q_proj.bias)
        self._source_q = _Affine(make, dtype, (source.q_proj.weight,), source.q_proj.bias)
        self._source_kv = _Affine(make, dtype, (source.k_proj.weight, source.v_proj.weight), None)
        self._out, self._source_out = _output(own, make, dtype), _output(source, make, dtype)
        self._fc1 = _Affine(make, dtype, (layer.fc1.weight,), layer.fc1.bias)
        self._fc2 = _Affine(make, dtype, (layer.fc2.weight,), layer.fc2.bias)
        norms = (layer.self_attn_layer_norm, layer.encoder_attn_layer_norm, layer.final_layer_norm)
        self._norms = [_Norm(norm, dtype) for norm in norms]

    def queries_keys_values(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, 3 x hidden)."""
        return self._qkv(x)

    def source_queries(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, hidden)."""
        return self._source_q(x)

    def source_keys_values(self, memory: torch.Tensor) -> torch.Tensor:
        """Of `memory` (n, hidden): (n, 2 x hidden)."""
        return self._source_kv(memory)

    def after_past(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Add what self-attention mixed to its input."""
        return self._norms[0](self._out(mixed).add_(x))

    def after_source(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Add what attention to the source mixed to its input."""
        return self._norms[1](self._source_out(mixed).add_(x))

    def feed_forward(self, x: torch.Tensor, activation: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The layer's last part."""
        return self._norms[2](self._fc2(activation(self._fc1(x))).add_(x))


class _Affine:
    """Several matrices as one; `bias` belongs to the first outputs, the others have none."""

    def __init__(
        self,
        make: Callable[[torch.Tensor], Matrix],
        dtype: torch.dtype,
        weights: Sequence[torch.Tensor],
        bias: torch.Tensor | None,
    ) -> None:
        weight = torch.cat([weight.detach() for weight in weights])
        self._matrix = make(weight)
        self._bias = None if bias is None else F.pad(bias.detach(), (0, len(weight) - len(bias))).to(dtype)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        product = self._matrix(rows)
        return product if self._bias is None else product.add_(self._bias)


def _output(attention: Attention, make: Callable[[torch.Tensor], Matrix], dtype: torch.dtype) -> _Affine:
    """The output projection, with what the values' bias becomes behind it."""
    out, values = attention.out_proj, attention.v_proj
    return _Affine(make, dtype, (out.weight,), out.bias + out.weight @ values.bias)


class _Norm:
    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        self._weight, self._bias = norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)
        self._shape, self._eps = norm.normalized_shape, norm.eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self._shape, self._weight, self._bias, self._eps)


class RecurrentSteps:
    """The LSTM with attention: its state takes the place of keys and values."""

    def __init__(self, net: RecurrentEncoderDecoder) -> None:
        self._net = net

    def open(self, sources: Sequence[Sequence[int]], beams: int) -> None:
        """See `TargetSteps`."""
        ids, mask = _padded(sources, self._net.config.pad_token_id, self._net.lm_head.weight.device)
        self._source, state = self._net.begin(self._net.encode(ids, mask), mask)
        self._state = state.rows(torch.arange(len(sources), device=ids.device).repeat_interleave(beams))
        self._beams = beams

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """See `TargetSteps`."""
        embedded = self._net.encoder.embed(tokens.view(-1, 1))
        hidden, self._state = self._net.step(embedded, self._source, self._state)
        scores: torch.Tensor = self._net.lm_head(hidden[:, 0]).float()
        return scores

    def select(self, parents: torch.Tensor) -> None:
        """See `TargetSteps`."""
        first = torch.arange(len(parents), device=parents.device)[:, None] * self._beams
        self._state = self._state.rows((first + parents).flatten())

    def keep(self, sources: torch.Tensor) -> None:
        """See `TargetSteps`."""
        beams = torch.arange(self._beams, device=sources.device)
        self._state = self._state.rows((sources[:, None] * self._beams + beams).flatten())
        self._source = self._source.rows(sources)
