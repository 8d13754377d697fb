"""The Transformer encoder in BERT's layout (Devlin et al. 2019), with Hugging Face's tensor names for it.

RoBERTa and DistilBERT are the same network but for what `EncoderConfig` says; `rung.nets.encoder_names` translates.

What is computed in is decided in `Encoder.embed`, as in the decoder: every layer casts its weights to that dtype.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from rung.errors import GenerationError
from rung.nets.body import States
from rung.nets.encoder_config import EncoderConfig
from rung.nets.layers import ACTIVATION_FUNCTIONS, LayerNorm, Linear


class Embeddings(nn.Module):
    """Words, positions and, where the family has them, the token type, which is 0 everywhere: a text is one segment."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = (
            nn.Embedding(config.type_vocab_size, config.hidden_size) if config.has_token_types else None
        )
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob
        self.first_position, self.max_length = config.first_position, config.max_length

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Add positions one after the other and the type to word embeddings (batch, time, hidden), and normalise."""
        time = words.shape[1]
        if time > self.max_length:
            raise GenerationError(
                f"{time} tokens do not fit this network's {self.max_length} positions", hint="shorten the text"
            )
        added = self.position_embeddings.weight[self.first_position : self.first_position + time]
        if self.token_type_embeddings is not None:
            added = added + self.token_type_embeddings.weight[0]
        return F.dropout(self.LayerNorm(words + added.to(words.dtype)), self.dropout, self.training)


class SelfAttention(nn.Module):
    """Every token attends to every real token."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.query, self.key, self.value = (Linear(config.hidden_size, config.hidden_size) for _ in range(3))
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob

    def forward(self, x: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
        """Mix (batch, time, hidden) where `allowed` (batch, 1, 1, time) is true; None: everywhere."""
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.query, self.key, self.value))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
        return mixed.transpose(1, 2).flatten(2)


class Output(nn.Module):
    """A linear map back into the residual stream, which is normalised after the sum (post-norm)."""

    def __init__(self, size: int, config: EncoderConfig, dropout: float) -> None:
        super().__init__()
        self.dense = Linear(size, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = dropout

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Map `x` (batch, time, size) to the shape of `residual` (batch, time, hidden) and add them."""
        normed: torch.Tensor = self.LayerNorm(F.dropout(self.dense(x), self.dropout, self.training) + residual)
        return normed


class EncoderLayer(nn.Module):
    """Attention, then two linear maps with an activation between them."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dropout = config.hidden_dropout_prob
        # DistilBERT drops nothing between attention and the residual stream.
        mixed = Output(config.hidden_size, config, 0.0 if config.model_type == "distilbert" else dropout)
        self.attention = nn.ModuleDict({"self": SelfAttention(config), "output": mixed})
        self.intermediate = nn.ModuleDict({"dense": Linear(config.hidden_size, config.intermediate_size)})
        self.output = Output(config.intermediate_size, config, dropout)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]

    def forward(self, x: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
        """Map (batch, time, hidden) to the same shape."""
        x = self.attention["output"](self.attention["self"](x, allowed), x)
        out: torch.Tensor = self.output(self.activation(self.intermediate["dense"](x)), x)
        return out


class Encoder(nn.Module):
    """The body. Matrices and embeddings start normal with deviation 0.02, biases at zero."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})
        self.apply(draw_normal)

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the word embeddings (batch, time, hidden) in the dtype to compute in: autocast's where it is on."""
        device = input_ids.device.type
        words: torch.Tensor = self.embeddings.word_embeddings(input_ids)
        return words.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else words

    def forward(self, embedded: torch.Tensor, mask: torch.Tensor | None = None, state: Any = None) -> States:
        """Return the hidden states (batch, time, hidden); positions and types are added here, and there is no state.

        Raises GenerationError for more tokens than positions.
        """
        allowed = None if mask is None else mask.bool()[:, None, None, :]
        x = self.embeddings(embedded)
        for layer in cast(nn.ModuleList, self.encoder["layer"]):
            x = layer(x, allowed)
        return States(x, state)


def draw_normal(module: nn.Module) -> None:
    """Draw a module's own matrices as BERT does (appendix A.2 and the published code: deviation 0.02)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
