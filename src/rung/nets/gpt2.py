"""GPT-2 (Radford et al. 2019): learned positions, layer norms, GELU, one product for query, key and value.

Parameters have Hugging Face's names. In memory every matrix is (out, in), as everywhere in Rung, so optimisers, LoRA
and the engine need no exception; files hold those of the layers transposed, as `Conv1D` of transformers does: `turned`
is the way there and back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from rung.nets.attention import KeyValueCache, Reading
from rung.nets.blank import without_values
from rung.nets.body import States
from rung.nets.body_and_head import BodyAndHead
from rung.nets.gpt2_config import GPT2Config
from rung.nets.layers import ACTIVATION_FUNCTIONS, LayerNorm, Linear

__all__ = ["GPT2LM", "GPT2Body", "GPT2Config", "gpt2_parameter_shapes", "turned"]

BODY_PREFIX = "transformer."
_TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


class Attention(nn.Module):
    """Causal attention of as many key heads as query heads."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.c_attn = Linear(config.hidden_size, 3 * config.hidden_size)
        self.c_proj = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: torch.Tensor, reading: Reading, layer: int) -> torch.Tensor:
        """Attend within `x` (batch, time, hidden), and to the cache where there is one."""
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=-1))
        out: torch.Tensor = self.c_proj(reading.attend(layer, q, k, v))
        return out


class MLP(nn.Module):
    """Two products with an activation between them."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = Linear(config.hidden_size, config.intermediate_size)
        self.c_proj = Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACTIVATION_FUNCTIONS[config.activation_function]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, time, hidden) to the same shape."""
        out: torch.Tensor = self.c_proj(self.activation(self.c_fc(x)))
        return out


class Block(nn.Module):
    """Attention, then the MLP, each after a norm and added to the residual stream."""

    def __init__(self, config: GPT2Config, dropout: float) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.dropout = dropout

    def forward(self, x: torch.Tensor, reading: Reading, layer: int) -> torch.Tensor:
        """Map (batch, time, hidden) to the same shape."""
        x = x + F.dropout(self.attn(self.ln_1(x), reading, layer), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.ln_2(x)), self.dropout, self.training)


class GPT2Body(nn.Module):
    """The body. `compute_dtype` is what `embed` returns and therefore what everything after it computes in."""

    def __init__(self, config: GPT2Config, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.compute_dtype = torch.float32
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.h = nn.ModuleList(Block(config, dropout) for _ in range(config.num_hidden_layers))
        self.ln_f = LayerNorm(config.hidden_size, config.layer_norm_epsilon)

    @property
    def embed_tokens(self) -> nn.Embedding:
        """The token embeddings, by the name that they have in other decoders."""
        return self.wte

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks, by the name that they have in other decoders."""
        return self.h

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embed `input_ids` (batch, time), see `Decoder.embed`; positions are added in `forward`, which knows them."""
        device = input_ids.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.compute_dtype
        return F.dropout(self.wte(input_ids).to(dtype), self.dropout, self.training)

    def forward(
        self, embedded: torch.Tensor, mask: torch.Tensor | None = None, state: KeyValueCache | None = None
    ) -> States:
        """Return the normed hidden states and `state`; all is as in `rung.nets.decoder.Decoder.forward`."""
        reading = Reading(embedded, mask, state, max_positions=self.config.max_position_embeddings)
        x = embedded + self.wpe(reading.positions).to(embedded.dtype)
        for number, layer in enumerate(self.h):
            x = layer(x, reading, number)
        if state is not None:
            state.advance(embedded.shape[1], mask)
        return States(self.ln_f(x), state)


class GPT2LM(BodyAndHead):
    """A GPT-2 and its output matrix; parameters are drawn, or given in `tensors`, as in `rung.nets.decoder.CausalLM`.

    Drawn as GPT-2's were: normal with deviation 0.02, divided by the square root of the number of branches for the
    matrices that write into the residual stream (section 2.3 of the paper); positions with 0.01.
    """

    transformer: GPT2Body
    lm_head: Linear

    def __init__(
        self,
        config: GPT2Config,
        *,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
        tensors: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Draw float32 parameters from `generator` (default: torch's global one), or hold `tensors`, uncopied."""
        super().__init__()
        self.config = config
        with without_values():
            self.transformer = GPT2Body(config, dropout)
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.transformer.wte.weight
        if tensors is None:
            shapes = gpt2_parameter_shapes(config)
            tensors = {name: _draw(name, shape, config, generator) for name, shape in shapes.items()}
        self._hold(tensors, tied=config.tie_word_embeddings)

    @property
    def model(self) -> GPT2Body:
        """The body, whose parameters keep Hugging Face's prefix."""
        return self.transformer


def gpt2_parameter_shapes(config: GPT2Config) -> dict[str, torch.Size]:
    """Return the name and shape in memory of every stored tensor, without allocating any."""
    with without_values():
        shapes = {f"{BODY_PREFIX}{name}": p.shape for name, p in GPT2Body(config).named_parameters()}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = torch.Size((config.vocab_size, config.hidden_size))
    return shapes


def turned(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor `name` as files hold it, from how memory holds it, or back: a view. Names of others never end so."""
    return tensor.t() if name.endswith(_TRANSPOSED) else tensor


def turned_shape(name: str, shape: torch.Size) -> torch.Size:
    """The shape that `turned` gives the tensor `name`."""
    return shape[::-1] if name.endswith(_TRANSPOSED) else shape


def old_buffers(config: GPT2Config) -> Iterable[str]:
    """Constants that older versions of transformers stored in every layer: the causal mask and what it put there."""
    for number in range(config.num_hidden_layers):
        yield f"{BODY_PREFIX}h.{number}.attn.bias"
        yield f"{BODY_PREFIX}h.{number}.attn.masked_bias"


def _draw(name: str, shape: torch.Size, config: GPT2Config, generator: torch.Generator | None) -> torch.Tensor:
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith(".bias") else torch.ones(shape)
    deviation = 0.01 if name.endswith("wpe.weight") else 0.02
    if name.endswith("c_proj.weight"):
        deviation /= math.sqrt(2 * config.num_hidden_layers)
    return torch.empty(shape).normal_(std=deviation, generator=generator)
