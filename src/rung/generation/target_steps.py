"""A target one token at a time, many beams at once: what an encoder-decoder keeps from one step to the next.

A row is one beam of one source. All targets of a batch start together, so every row is at the same position. What
belongs to a source - its memory, its keys and values - is kept once, however many beams look at it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F

from rung.errors import GenerationError
from rung.generation.matrices import Precision
from rung.generation.target_weights import target_weights
from rung.nets.encoder_decoder import EncoderDecoder, added_mask
from rung.nets.recurrent_encoder_decoder import RecurrentEncoderDecoder
from rung.nets.t5 import T5

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


def target_steps(net: EncoderDecoder | T5 | RecurrentEncoderDecoder, precision: Precision) -> TargetSteps:
    """The steps of any kind of network. Only Transformers are offered in other precisions than fp32."""
    if not isinstance(net, RecurrentEncoderDecoder):
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
    """A Transformer's weights fused once (`rung.generation.target_weights`), and the keys and values of its targets.

    Beams never copy keys and values when they are chosen anew. A step writes those of all beams of a source side by
    side, and a mask says which of them are a beam's ancestors: one product for all beams of a source reads each key
    once, where a copy would have read and written it before.
    """

    def __init__(self, net: EncoderDecoder | T5, precision: Precision) -> None:
        self._net = net
        self._dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        self._weights = target_weights(net, precision)
        self._heads, self._scale = self._weights.heads, self._weights.scale

    def open(self, sources: Sequence[Sequence[int]], beams: int) -> None:
        """Read `sources`: their keys and values for each layer are computed here, once."""
        device = self._net.lm_head.weight.device
        ids, mask = _padded(sources, self._net.config.pad_token_id, device)
        lower = self._dtype != torch.float32
        computing = torch.autocast(device.type, self._dtype) if lower else contextlib.nullcontext()
        with computing:
            memory = self._net.encode(ids, mask).to(self._dtype)
        self._mask = None if bool(mask.all()) else added_mask(mask, self._dtype)
        rows = memory.flatten(0, 1)
        self._source_keys, self._source_values = zip(
            *(self._by_source(layer.source_keys_values(rows), len(sources)) for layer in self._weights.layers),
            strict=True,
        )
        self._beams, self._time = beams, 0
        layers, size = len(self._weights.layers), self._weights.head_dim
        # Keys and values of the targets: (layers x 2, sources, heads, time x beams, head_dim).
        self._past = torch.zeros(2 * layers, len(sources), self._heads, 0, size, dtype=self._dtype, device=device)
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
        added = self._added_to_past()
        x = self._weights.embed(tokens.flatten(), self._time)
        for number, layer in enumerate(self._weights.layers):
            q, k, v = layer.queries_keys_values(x).view(sources, self._beams, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            keys, values = self._past[2 * number], self._past[2 * number + 1]
            keys[:, :, start:end], values[:, :, start:end] = k, v
            mixed = self._attend(q, keys[:, :, :end], values[:, :, :end], added)
            x = layer.after_past(x, self._by_row(mixed))
            q = layer.source_queries(x).view(sources, self._beams, self._heads, -1).transpose(1, 2)
            mixed = self._attend(q, self._source_keys[number], self._source_values[number], self._mask)
            x = layer.feed_forward(layer.after_source(x, self._by_row(mixed)))
        self._time += 1
        return self._weights.scores(x)

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=self._scale)

    def _added_to_past(self) -> torch.Tensor | None:
        """What is added to scores of the past: minus infinity for those who are no ancestors, and T5's positions."""
        bias = self._weights.past_bias(self._time)
        if bias is not None:
            bias = bias.repeat_interleave(self._beams, dim=-1)[:, None]
        if self._beams == 1:
            return bias
        seen = self._seen[:, :, : self._time + 1].flatten(2)[:, None]
        return seen if bias is None else seen + bias

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
