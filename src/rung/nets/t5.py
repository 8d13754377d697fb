"""T5 (Raffel et al. 2020, arXiv 1910.10683) in its versions 1.0 and 1.1, with Hugging Face's tensor names.

Pre-norm with RMSNorm, no biases, scores that are not scaled (the initialisation of the queries was), and no positions
but a number for each head and distance that is added to the scores of self-attention: distances fall into buckets, the
first layer of each side holds their numbers, and all its layers share them (section 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import nn

from rung.errors import GenerationError
from rung.nets.blank import without_values
from rung.nets.body import States
from rung.nets.dropout import dropout
from rung.nets.encoder_decoder import added_mask, attend
from rung.nets.layers import ACTIVATION_FUNCTIONS, Linear, RMSNorm
from rung.nets.t5_config import ACTIVATIONS, T5Config
from rung.nets.vocabulary_head import VocabularyHead

__all__ = ["T5", "T5Config", "position_buckets", "t5_parameter_shapes"]


class T5Attention(nn.Module):
    """Multi-head attention without scaling; the first self-attention of a side holds the numbers of distances."""

    def __init__(self, config: T5Config, *, relative: bool = False) -> None:
        super().__init__()
        inner, self.heads = config.num_heads * config.d_kv, config.num_heads
        self.q, self.k, self.v = (Linear(config.d_model, inner, bias=False) for _ in range(3))
        self.o = Linear(inner, config.d_model, bias=False)
        if relative:
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)

    def forward(self, x: torch.Tensor, source: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
        """Mix what `source` (batch, keys, hidden) holds into `x` (batch, time, hidden).

        `added` (batch or 1, heads or 1, time or 1, keys) is added to the scores.
        """
        q, k, v = self.split(self.q(x)), self.split(self.k(source)), self.split(self.v(source))
        mixed: torch.Tensor = self.o(attend(q, k, v, added, scale=1.0).transpose(1, 2).flatten(2))
        return mixed

    def split(self, projected: torch.Tensor) -> torch.Tensor:
        """(batch, time, inner) by heads: (batch, heads, time, d_kv)."""
        return projected.view(*projected.shape[:2], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear maps with an activation between them, gated in version 1.1."""

    wi: Linear
    wi_0: Linear
    wi_1: Linear

    def __init__(self, config: T5Config, dropout: float) -> None:
        super().__init__()
        into = ("wi_0", "wi_1") if config.is_gated else ("wi",)
        for name in into:
            setattr(self, name, Linear(config.d_model, config.d_ff, bias=False))
        self.wo = Linear(config.d_ff, config.d_model, bias=False)
        self.activation = ACTIVATION_FUNCTIONS[ACTIVATIONS[config.feed_forward_proj]]
        self.dropout = dropout

    def into(self) -> tuple[Linear, ...]:
        """The maps into the wide space: what is activated, then its gate where there is one."""
        return (self.wi_0, self.wi_1) if hasattr(self, "wi_0") else (self.wi,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., hidden) to the same shape."""
        first, *gate = (linear(x) for linear in self.into())
        wide = self.activation(first)
        if gate:
            wide = wide * gate[0]
        out: torch.Tensor = self.wo(dropout(wide, self.dropout, self.training))
        return out


class Branch(nn.Module):
    """One part of a layer: what is added to its input is computed from its normed input."""

    def __init__(self, config: T5Config, name: str, part: nn.Module) -> None:
        super().__init__()
        self.name = name
        setattr(self, name, part)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    @property
    def part(self) -> nn.Module:
        """The attention or the linear maps."""
        return cast(nn.Module, getattr(self, self.name))


class Block(nn.Module):
    """A layer of either side: self-attention, on the target side attention to the source, then the linear maps."""

    def __init__(self, config: T5Config, dropout: float, *, first: bool, is_decoder: bool) -> None:
        super().__init__()
        parts = [Branch(config, "SelfAttention", T5Attention(config, relative=first))]
        if is_decoder:
            parts.append(Branch(config, "EncDecAttention", T5Attention(config)))
        parts.append(Branch(config, "DenseReluDense", FeedForward(config, dropout)))
        self.layer = nn.ModuleList(parts)
        self.dropout = dropout

    def branches(self) -> tuple[Branch, ...]:
        """The parts in their order."""
        return tuple(cast(Branch, part) for part in self.layer)

    def forward(
        self,
        x: torch.Tensor,
        added: torch.Tensor,
        memory: torch.Tensor | None = None,
        memory_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map (batch, time, hidden) to the same shape. `added`: to self-attention's scores, as in `T5Attention`."""
        own, *across, wide = self.branches()
        normed = own.layer_norm(x)
        x = x + self.drop(own.part(normed, normed, added))
        for branch in across:
            x = x + self.drop(branch.part(branch.layer_norm(x), memory, memory_mask))
        return x + self.drop(wide.part(wide.layer_norm(x)))

    def drop(self, branch: torch.Tensor) -> torch.Tensor:
        """Residual dropout."""
        return dropout(branch, self.dropout, self.training)


class T5Stack(nn.Module):
    """The layers of one side and their last norm."""

    def __init__(self, config: T5Config, dropout: float, *, is_decoder: bool) -> None:
        super().__init__()
        count = config.num_decoder_layers if is_decoder else config.num_layers
        self.block = nn.ModuleList(
            Block(config, dropout, first=number == 0, is_decoder=is_decoder) for number in range(count)
        )
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.is_decoder = is_decoder
        self.buckets, self.furthest = config.relative_attention_num_buckets, config.relative_attention_max_distance

    def blocks(self) -> tuple[Block, ...]:
        """The layers in their order."""
        return tuple(cast(Block, block) for block in self.block)

    def numbers_of(self, distances: torch.Tensor) -> torch.Tensor:
        """What is added to scores of keys at `distances` (key minus query, any shape): (heads, *that shape)."""
        attention = cast(T5Attention, self.blocks()[0].branches()[0].part)
        buckets = position_buckets(
            distances, both_sides=not self.is_decoder, buckets=self.buckets, furthest=self.furthest
        )
        numbers: torch.Tensor = attention.relative_attention_bias(buckets)
        return numbers.movedim(-1, 0)

    def added(self, time: int, like: torch.Tensor) -> torch.Tensor:
        """What is added to the scores of self-attention: (1, heads, time, time), causal on the target side."""
        places = torch.arange(time, device=like.device)
        distances = places - places[:, None]
        added = self.numbers_of(distances).to(like.dtype)
        if self.is_decoder:
            added = added.masked_fill(distances > 0, -torch.inf)
        return added[None]


class T5(nn.Module):
    """The same interface as `rung.nets.encoder_decoder.EncoderDecoder`, around stored tensors.

    `dropout` acts, while training, on embedded tokens, inside the linear maps, on each branch and on what each side
    gives; it is no part of the stored configuration. Attention weights are not dropped.
    """

    shared: nn.Embedding
    encoder: T5Stack
    decoder: T5Stack
    lm_head: VocabularyHead | Linear

    def __init__(self, config: T5Config, *, tensors: Mapping[str, torch.Tensor], dropout: float = 0.0) -> None:
        """Hold `tensors`, uncopied, named as `t5_parameter_shapes` says."""
        super().__init__()
        self.config = config
        self.dropout = dropout
        with without_values():
            for name, part in _parts(config, dropout).items():
                self.add_module(name, part)
        self.load_state_dict(tensors, assign=True)
        if config.tie_word_embeddings:
            self.lm_head = VocabularyHead(self.shared)

    def encode(self, source_ids: torch.Tensor, source_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the memory (batch, source, hidden) of `source_ids` (batch, source); see `EncoderDecoder.encode`."""
        x = self._embed(source_ids)
        added = self.encoder.added(x.shape[1], x)
        if (mask := added_mask(source_mask, x.dtype)) is not None:
            added = added + mask
        for block in self.encoder.blocks():
            x = block(x, added)
        return self._drop(self.encoder.final_layer_norm(x))

    def decode(
        self, target_inputs: torch.Tensor, memory: torch.Tensor, source_mask: torch.Tensor | None = None
    ) -> States:
        """Return what `lm_head` scores, (batch, target, hidden), of `target_inputs`; see `EncoderDecoder.decode`."""
        x = self._embed(target_inputs)
        added, mask, memory = self.decoder.added(x.shape[1], x), added_mask(source_mask, x.dtype), memory.to(x.dtype)
        for block in self.decoder.blocks():
            x = block(x, added, memory, mask)
        return States(self._drop(self.decoder.final_layer_norm(x)) * self.output_scale, None)

    def forward(
        self, source_ids: torch.Tensor, target_inputs: torch.Tensor, source_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the scores (batch, target, vocabulary) of the token that follows each target input."""
        memory = self.encode(source_ids, source_mask)
        scores: torch.Tensor = self.lm_head(self.decode(target_inputs, memory, source_mask).hidden)
        return scores

    @property
    def output_scale(self) -> float:
        """What hidden states are multiplied by before they are scored."""
        return self.config.d_model**-0.5 if self.config.scale_decoder_outputs else 1.0

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        return dropout(x, self.dropout, self.training)

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        time, device = ids.shape[1], ids.device.type
        if time > self.config.n_positions:
            raise GenerationError(
                f"{time} tokens do not fit this network's {self.config.n_positions} positions",
                hint="shorten the text, or set n_positions in its config.json higher: relative positions have no end",
            )
        embedded = self.shared(ids)
        if torch.is_autocast_enabled(device):
            embedded = embedded.to(torch.get_autocast_dtype(device))
        return self._drop(embedded)


def position_buckets(distances: torch.Tensor, *, both_sides: bool, buckets: int, furthest: int) -> torch.Tensor:
    """The bucket of each of `distances` (key minus query, integers of any shape): int64 of that shape.

    Half of the buckets of a direction hold one distance each; the others grow logarithmically up to `furthest`, beyond
    which all are in the last. `both_sides` gives keys that follow the query the upper half of the buckets; else they
    count as distance 0 (the mask hides them).
    """
    first = torch.zeros_like(distances)
    if both_sides:
        buckets //= 2
        first = (distances > 0) * buckets
        distances = distances.abs()
    else:
        distances = -distances.clamp(max=0)
    single = buckets // 2
    growth = torch.log(distances.clamp(min=1).float() / single) / math.log(furthest / single)
    beyond = single + (growth * (buckets - single)).long()
    return first + torch.where(distances < single, distances, beyond.clamp(max=buckets - 1))


def t5_parameter_shapes(config: T5Config) -> dict[str, torch.Size]:
    """Return the name and shape of every stored tensor, without allocating any."""
    with without_values():
        parts = _parts(config, 0.0)
    return {f"{name}.{inner}": p.shape for name, part in parts.items() for inner, p in part.named_parameters()}


def _parts(config: T5Config, dropout: float) -> dict[str, nn.Module]:
    """What has parameters of its own, by name."""
    parts: dict[str, nn.Module] = {
        "shared": nn.Embedding(config.vocab_size, config.d_model),
        "encoder": T5Stack(config, dropout, is_decoder=False),
        "decoder": T5Stack(config, dropout, is_decoder=True),
    }
    if not config.tie_word_embeddings:
        parts["lm_head"] = Linear(config.d_model, config.vocab_size, bias=False)
    return parts
