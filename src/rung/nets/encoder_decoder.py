"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017, arXiv 1706.03762), in Marian's layout.

Of the encoder-decoders that transformers knows, `MarianMTModel` is the one that is exactly the paper's network:
post-norm layers, sinusoidal positions, ReLU, embeddings times sqrt(d_model), one matrix for both embeddings and the
output. So tensor names are Marian's, and a stored network opens there with equal scores. BART differs in how tokens are
embedded and is computed here too (`rung.nets.bart`); T5 in everything (`rung.nets.t5`).

What is computed in is decided where tokens are embedded, as in the decoder: every layer casts its weights to that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from rung.errors import GenerationError
from rung.nets.bart import POSITION_OFFSET
from rung.nets.blank import without_values
from rung.nets.body import States
from rung.nets.dropout import dropout
from rung.nets.encoder_decoder_config import EncoderDecoderConfig
from rung.nets.layers import ACTIVATION_FUNCTIONS, LayerNorm, Linear
from rung.nets.vocabulary_head import VocabularyHead

__all__ = ["EncoderDecoder", "EncoderDecoderConfig", "parameter_shapes", "position_table"]


class Attention(nn.Module):
    """Multi-head attention (section 3.2.2): within one text, or from the target to the source."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (Linear(size, size) for _ in range(4))

    def forward(
        self,
        x: torch.Tensor,
        source: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        *,
        causal: bool = False,
    ) -> torch.Tensor:
        """Mix what `source` (batch, keys, hidden; default `x`) holds into `x` (batch, time, hidden).

        `mask` (batch, 1, 1, keys) is added to the scores; `causal` hides later positions.
        """
        q, k, v = self.split(self.q_proj(x)), *self.keys_and_values(x if source is None else source)
        mixed = attend(q, k, v, mask, causal=causal)
        out: torch.Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def keys_and_values(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values of `source`, (batch, heads, keys, head_dim) each."""
        return self.split(self.k_proj(source)), self.split(self.v_proj(source))

    def split(self, projected: torch.Tensor) -> torch.Tensor:
        """(batch, time, hidden) by heads: (batch, heads, time, head_dim)."""
        return projected.view(*projected.shape[:2], self.heads, -1).transpose(1, 2)

    def weights(self, x: torch.Tensor, source: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """How much each head looks where: (batch, heads, time, keys), each row adding up to 1."""
        q, k = self.split(self.q_proj(x)), self.split(self.k_proj(source))
        scores = q @ k.mT * q.shape[-1] ** -0.5
        weights: torch.Tensor = (scores if mask is None else scores + mask).softmax(-1)
        return weights


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> torch.Tensor:
    """Scaled dot-product attention (section 3.2.1) of (batch, heads, time, head_dim); `scale` is head_dim^-0.5.

    The backward pass of torch's fused attention is slow in bfloat16 on a CPU, and texts to be translated are short: a
    training step of 128 pairs of 16 tokens (6 layers, 256 features, one thread) takes 0.82 s with it and 0.47 s with
    plain products. In float32 it is the other way round, 1.20 against 1.30 s.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.mT
    if mask is not None:
        scores = scores + mask
    if causal:
        later = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    mixed: torch.Tensor = scores.softmax(-1) @ v
    return mixed


class Layer(nn.Module):
    """What the layers of both sides share. After each part, the sum with its input is normalised (post-norm)."""

    def __init__(self, config: EncoderDecoderConfig, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        size = config.d_model
        self.self_attn, self.self_attn_layer_norm = Attention(size, heads), LayerNorm(size)
        self.fc1, self.fc2, self.final_layer_norm = Linear(size, inner), Linear(inner, size), LayerNorm(size)
        self.activation = ACTIVATION_FUNCTIONS[config.activation_function]
        self.dropout = dropout

    def feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        """The last part: two linear maps with an activation between them."""
        out: torch.Tensor = self.final_layer_norm(x + self.drop(self.fc2(self.activation(self.fc1(x)))))
        return out

    def drop(self, branch: torch.Tensor) -> torch.Tensor:
        """Residual dropout (section 5.4)."""
        return dropout(branch, self.dropout, self.training)


class EncoderLayer(Layer):
    """Self-attention, then the linear maps."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Map (batch, source, hidden) to the same shape; `mask` as in `Attention`."""
        return self.feed_forward(self.self_attn_layer_norm(x + self.drop(self.self_attn(x, mask=mask))))


class DecoderLayer(Layer):
    """Causal self-attention, attention to the source, then the linear maps."""

    def __init__(self, config: EncoderDecoderConfig, heads: int, inner: int, dropout: float) -> None:
        super().__init__(config, heads, inner, dropout)
        self.encoder_attn, self.encoder_attn_layer_norm = Attention(config.d_model, heads), LayerNorm(config.d_model)

    def forward(self, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Map (batch, target, hidden) to the same shape, with `memory` (batch, source, hidden)."""
        x = self.attend_to_past(x)
        x = self.encoder_attn_layer_norm(x + self.drop(self.encoder_attn(x, memory, mask)))
        return self.feed_forward(x)

    def attend_to_past(self, x: torch.Tensor) -> torch.Tensor:
        """The first part: its result asks the source."""
        out: torch.Tensor = self.self_attn_layer_norm(x + self.drop(self.self_attn(x, causal=True)))
        return out


class Stack(nn.Module):
    """The layers of one side, and what BART adds to embedded tokens: positions of its own and a norm."""

    def __init__(self, config: EncoderDecoderConfig, layers: Iterable[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.embed_positions, self.layernorm_embedding = None, None
        if config.learned_positions:
            self.embed_positions = nn.Embedding(POSITION_OFFSET + config.max_position_embeddings, config.d_model)
            self.layernorm_embedding = LayerNorm(config.d_model)


class Transformer(nn.Module):
    """Both sides and the embeddings they share."""

    def __init__(self, config: EncoderDecoderConfig, dropout: float) -> None:
        super().__init__()
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        encoder, decoder = (
            (config.encoder_attention_heads, config.encoder_ffn_dim, dropout),
            (config.decoder_attention_heads, config.decoder_ffn_dim, dropout),
        )
        self.encoder = Stack(config, (EncoderLayer(config, *encoder) for _ in range(config.encoder_layers)))
        self.decoder = Stack(config, (DecoderLayer(config, *decoder) for _ in range(config.decoder_layers)))


class EncoderDecoder(nn.Module):
    """Source tokens to a memory, target tokens and a memory to hidden states, and a head that scores those.

    No parameter exists before it has a value: drawn, or given in `tensors`. Drawn as fairseq draws the paper's network:
    matrices uniform after Glorot and Bengio (2010), those of query, key and value with gain 1 / sqrt(2); embeddings
    normal with deviation d_model^-0.5, the padding's zero; biases zero. `dropout` acts on the embedded tokens and on
    each branch while training, and is no part of the stored configuration.
    """

    sines: torch.Tensor | None

    def __init__(
        self,
        config: EncoderDecoderConfig,
        *,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
        tensors: Mapping[str, torch.Tensor] | None = None,
        logits_bias: torch.Tensor | None = None,
    ) -> None:
        """Draw float32 parameters from `generator` (default: torch's global one), or hold `tensors`, uncopied.

        `logits_bias` (vocabulary,) is the `final_logits_bias`, where a stored network has one that is not zero.
        """
        super().__init__()
        self.config = config
        self.dropout = dropout
        with without_values():
            self.model = Transformer(config, dropout)
        if tensors is None:
            tensors = {name: _draw(name, shape, config, generator) for name, shape in parameter_shapes(config).items()}
        self.load_state_dict(tensors, assign=True)
        self.lm_head = VocabularyHead(self.model.shared, logits_bias)
        sines = None
        if not config.learned_positions:
            sines = position_table(config.max_position_embeddings, config.d_model).to(self.lm_head.weight.device)
        self.register_buffer("sines", sines, persistent=False)

    def encode(self, source_ids: torch.Tensor, source_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the memory (batch, source, hidden) of `source_ids` (batch, source).

        `source_mask` (batch, source) is 1 for real tokens, 0 for padding on the right; None: all are real. Raises
        GenerationError for more tokens than `max_position_embeddings`.
        """
        x = self._embed(source_ids, self.model.encoder)
        mask = added_mask(source_mask, x.dtype)
        for layer in self.model.encoder.layers:
            x = layer(x, mask)
        return x

    def decode(
        self, target_inputs: torch.Tensor, memory: torch.Tensor, source_mask: torch.Tensor | None = None
    ) -> States:
        """Return the hidden states (batch, target, hidden) of `target_inputs` (batch, target).

        Row i of `target_inputs` begins with `decoder_start_token_id`; padding on its right touches no real token. There
        is no state: `rung.generation` keeps keys and values itself. GenerationError as in `encode`.
        """
        x = self._embed(target_inputs, self.model.decoder)
        mask = added_mask(source_mask, x.dtype)
        for layer in self.model.decoder.layers:
            x = layer(x, memory.to(x.dtype), mask)
        return States(x, None)

    def forward(
        self, source_ids: torch.Tensor, target_inputs: torch.Tensor, source_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the scores (batch, target, vocabulary) of the token that follows each target input."""
        scores: torch.Tensor = self.lm_head(
            self.decode(target_inputs, self.encode(source_ids, source_mask), source_mask).hidden
        )
        return scores

    def attention(
        self, source_ids: torch.Tensor, target_inputs: torch.Tensor, source_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Where each target position looks in the source: (layers, batch, heads, target, source), for pictures."""
        memory = self.encode(source_ids, source_mask)
        x = self._embed(target_inputs, self.model.decoder)
        mask, seen = added_mask(source_mask, x.dtype), []
        for layer in cast(Iterable[DecoderLayer], self.model.decoder.layers):
            seen.append(layer.encoder_attn.weights(layer.attend_to_past(x), memory, mask))
            x = layer(x, memory, mask)
        return torch.stack(seen)

    def positions(self, side: Stack) -> torch.Tensor:
        """What `side` adds to embedded tokens: (max_position_embeddings, hidden)."""
        if side.embed_positions is not None:
            return side.embed_positions.weight[POSITION_OFFSET:]
        return cast(torch.Tensor, self.sines)

    def _embed(self, ids: torch.Tensor, side: Stack) -> torch.Tensor:
        time, device = ids.shape[1], ids.device.type
        positions = self.positions(side)
        if time > len(positions):
            raise GenerationError(
                f"{time} tokens do not fit this network's {len(positions)} positions", hint="shorten the text"
            )
        scale = math.sqrt(self.config.d_model) if self.config.scale_embedding else 1.0
        placed = self.model.shared(ids) * scale + positions[:time]
        if side.layernorm_embedding is not None:
            placed = side.layernorm_embedding(placed)
        if torch.is_autocast_enabled(device):
            placed = placed.to(torch.get_autocast_dtype(device))
        return dropout(placed, self.dropout, self.training)


def position_table(positions: int, size: int) -> torch.Tensor:
    """Return sines in the first half of each row, cosines in the second: (positions, size) float32.

    Section 3.5; the paper interleaves them, Marian does not, which is the same network with its features in another
    order.
    """
    frequencies = 10_000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies)
    return torch.cat((angles.sin(), angles.cos()), dim=1).float()


def added_mask(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Turn a padding mask (batch, keys) into (batch, 1, 1, keys): 0 where a key is real, minus infinity elsewhere."""
    if mask is None:
        return None
    added = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask == 0, -torch.inf)
    return added[:, None, None]


def parameter_shapes(config: EncoderDecoderConfig) -> dict[str, torch.Size]:
    """Return the name and shape of every parameter, without allocating any."""
    with without_values():
        return {f"model.{name}": p.shape for name, p in Transformer(config, 0.0).named_parameters()}


def _draw(
    name: str, shape: torch.Size, config: EncoderDecoderConfig, generator: torch.Generator | None
) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape) if name.endswith(("norm.weight", "layernorm_embedding.weight")) else torch.zeros(shape)
    values = torch.empty(shape)
    if name == "model.shared.weight" or name.endswith("embed_positions.weight"):
        values.normal_(std=config.d_model**-0.5, generator=generator)
        if name == "model.shared.weight":
            values[config.pad_token_id] = 0.0
        return values
    gain = 2**-0.5 if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")) else 1.0
    return nn.init.xavier_uniform_(values, gain=gain, generator=generator)
