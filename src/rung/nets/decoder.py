"""The decoder: Qwen3's shape by default, Llama's, Mistral's or Qwen2's by configuration; the names are Hugging Face's.

Parameters are float32 masters. What is computed in is decided in one place, `Decoder.embed`: every layer casts its
weights to the dtype of what comes in. Set `compute_dtype`; under autocast, its dtype is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from rung.nets.attention import KeyValueCache, Reading, rotate
from rung.nets.blank import without_values
from rung.nets.body import States
from rung.nets.body_and_head import BodyAndHead
from rung.nets.decoder_config import DecoderConfig
from rung.nets.layers import Linear, RMSNorm
from rung.nets.rope import rotary_table

__all__ = ["CausalLM", "Decoder", "DecoderConfig", "KeyValueCache", "parameter_shapes"]


class Attention(nn.Module):
    """Grouped-query attention with rotary positions and, for qwen3, a norm of each query and key."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, queries, bias=config.qkv_bias)
        self.k_proj = Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.v_proj = Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.o_proj = Linear(queries, config.hidden_size, bias=config.o_bias)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None

    def forward(self, x: torch.Tensor, context: _Context, layer: int) -> torch.Tensor:
        """Attend within `x` (batch, time, hidden), and to the cache where there is one."""
        q, k, v = (p(x).unflatten(-1, (-1, self.head_dim)) for p in (self.q_proj, self.k_proj, self.v_proj))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = (rotate(part.transpose(1, 2), context.cos, context.sin) for part in (q, k))
        out: torch.Tensor = self.o_proj(context.reading.attend(layer, q, k, v.transpose(1, 2)))
        return out


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, time, hidden) to the same shape."""
        out: torch.Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _Context(NamedTuple):
    """What all layers of one forward pass share: who sees whom, and how far queries and keys are turned."""

    reading: Reading
    cos: torch.Tensor  # (batch or 1, 1, time, head_dim / 2)
    sin: torch.Tensor


class DecoderLayer(nn.Module):
    """Attention, then the MLP, each after a norm and added to the residual stream."""

    def __init__(self, config: DecoderConfig, dropout: float) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)
        self.dropout = dropout

    def forward(self, x: torch.Tensor, context: _Context, layer: int) -> torch.Tensor:
        """Map (batch, time, hidden) to the same shape."""
        x = x + F.dropout(self.self_attn(self.input_layernorm(x), context, layer), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), self.dropout, self.training)


class Decoder(nn.Module):
    """The body. `compute_dtype` is what `embed` returns and therefore what everything after it computes in."""

    rotary: torch.Tensor

    def __init__(self, config: DecoderConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.compute_dtype = torch.float32
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, dropout) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the embedded tokens (batch, time, hidden) of `input_ids` (batch, time) in the dtype to compute in.

        That is autocast's where it is on, so that the residual stream and every backward pass are in it too.
        """
        device = input_ids.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.compute_dtype
        return F.dropout(self.embed_tokens(input_ids).to(dtype), self.dropout, self.training)

    def forward(
        self, embedded: torch.Tensor, mask: torch.Tensor | None = None, state: KeyValueCache | None = None
    ) -> States:
        """Return the normed hidden states (batch, time, hidden) of `embedded`, and `state` after these tokens.

        `mask` (batch, time) is 1 for real tokens, 0 for padding: on either side without a state, on the right with one.
        Without a state it may also number the documents of a row, 1, 2, ...: a token attends to its own document only,
        and positions begin anew in each. GenerationError for such numbers with a state, or for too many tokens.
        `state`, a `KeyValueCache`, is written in place; without one, every row starts at position 0.
        """
        x, config = embedded, self.config
        reading = Reading(x, mask, state, max_positions=config.max_position_embeddings, window=config.sliding_window)
        cos, sin = self.rotary[:, reading.positions].to(x.dtype)[:, :, None]
        context = _Context(reading, cos, sin)
        for number, layer in enumerate(self.layers):
            x = layer(x, context, number)
        if state is not None:
            state.advance(embedded.shape[1], mask)
        return States(self.norm(x), state)


class CausalLM(BodyAndHead):
    """A decoder and its output matrix. No parameter exists before it has a value: drawn, or given in `tensors`.

    Drawn: matrices and embeddings are normal with deviation 0.02; the two matrices that write into the residual stream
    (o_proj, down_proj) start at zero, so that every layer starts as the identity (modded-nanogpt record 5, nanochat).
    `dropout` acts on the embedding and on each branch while training, and is no part of the stored configuration.
    """

    model: Decoder
    lm_head: Linear

    def __init__(
        self,
        config: DecoderConfig,
        *,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
        tensors: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Draw float32 parameters from `generator` (default: torch's global one), or hold `tensors`, uncopied."""
        super().__init__()
        self.config = config
        with without_values():
            self.model = Decoder(config, dropout)
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        if tensors is None:
            tensors = {name: _draw(name, shape, generator) for name, shape in parameter_shapes(config).items()}
        self._hold(tensors, tied=config.tie_word_embeddings)
        first = self.model.embed_tokens.weight
        table = rotary_table(config.max_position_embeddings, config.head_dim, config.rope_theta, config.rope_scaling)
        self.model.register_buffer("rotary", table.to(first.device), persistent=False)


def parameter_shapes(config: DecoderConfig) -> dict[str, torch.Size]:
    """Return the name and shape of every stored tensor, without allocating any."""
    with without_values():
        shapes = {f"model.{name}": p.shape for name, p in Decoder(config).named_parameters()}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = torch.Size((config.vocab_size, config.hidden_size))
    return shapes


def _draw(name: str, shape: torch.Size, generator: torch.Generator | None) -> torch.Tensor:
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith(".bias") else torch.ones(shape)
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        return torch.zeros(shape)
    return torch.empty(shape).normal_(std=0.02, generator=generator)
