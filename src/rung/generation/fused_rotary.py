"""The fused weights of decoders with rotary positions: Qwen3, Llama, Mistral and Qwen2.

Gate and up are one product too, and queries and keys are normed and rotated together.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F

from rung.generation.matrices import MakeMatrix, Precision, dtype_of, matrices_of
from rung.nets.decoder import Attention, CausalLM, DecoderLayer
from rung.nets.decoder_config import DecoderConfig
from rung.nets.layers import RMSNorm


class FusedRotary:
    """See `rung.generation.fused.FusedNet`."""

    def __init__(self, net: CausalLM, precision: Precision) -> None:
        config, dtype = net.config, dtype_of(precision)
        make = matrices_of(precision)
        self._embedding = net.model.embed_tokens.weight.detach().to(dtype)
        floor = _floor(config.hidden_size, config).to(self.device, dtype)
        self.layers = [_Layer(cast(DecoderLayer, layer), config, make, floor) for layer in net.model.layers]
        self._head = make(net.lm_head.weight.float() * _norm_factor(net.model.norm))
        cos, sin = net.model.rotary.float()[:, :, None]
        # Half-rotation: (a, b) -> (a cos - b sin, b cos + a sin). (positions, cos and sin, 1, head_dim)
        rotary = torch.stack((torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)), dim=1)
        self._rotary = rotary.to(dtype)
        self._floor = floor

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._embedding.device

    def embed(self, tokens: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, _Turns]:
        """Return the embedded tokens, and how far queries and keys are turned at each place."""
        return self._embedding[tokens], _Turns(*self._rotary[positions].unbind(1))

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """Norm and output matrix."""
        return self._head(unit(hidden, self._floor)).float()


class _Turns(NamedTuple):
    cos: torch.Tensor  # (n, 1, head_dim)
    sin: torch.Tensor  # the same, its first half negated


class _Layer:
    """The fused weights of one layer."""

    def __init__(
        self, layer: DecoderLayer, config: DecoderConfig, make: MakeMatrix, hidden_floor: torch.Tensor
    ) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        before, after = (_norm_factor(norm) for norm in (layer.input_layernorm, layer.post_attention_layernorm))
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        bias = torch.cat([cast(torch.Tensor, p.bias) for p in projections]) if config.qkv_bias else None
        self._qkv = make(torch.cat([p.weight for p in projections]).float() * before, bias)
        self._o = make(attention.o_proj.weight, attention.o_proj.bias)
        gate_up_bias = torch.cat((mlp.gate_proj.bias, mlp.up_proj.bias)) if config.mlp_bias else None
        self._gate_up = make(torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)).float() * after, gate_up_bias)
        self._down = make(mlp.down_proj.weight, mlp.down_proj.bias)
        self._head_gains = _head_gains(attention, config).to(hidden_floor.dtype) if config.qk_norm else None
        self._hidden_floor, self._head_floor = hidden_floor, _floor(config.head_dim, config).to(hidden_floor)
        self._head_dim = config.head_dim
        self._turned = config.num_attention_heads + config.num_key_value_heads

    def queries_keys_values(self, x: torch.Tensor, places: _Turns) -> torch.Tensor:
        """One product; queries and keys are normed, where the family does so, and rotated."""
        qkv = self._qkv(unit(x, self._hidden_floor)).view(len(x), -1, self._head_dim)
        turned = qkv[:, : self._turned]
        normed = turned if self._head_gains is None else unit(turned, self._head_floor).mul_(self._head_gains)
        torch.addcmul(normed * places.cos, normed.roll(self._head_dim // 2, -1), places.sin, out=turned)
        return qkv

    def add_attention(self, x: torch.Tensor, mixed: torch.Tensor) -> None:
        """The output projection."""
        x += self._o(mixed)

    def add_mlp(self, x: torch.Tensor) -> None:
        """The SwiGLU of the normed `x`."""
        gate, up = self._gate_up(unit(x, self._hidden_floor)).chunk(2, -1)
        x += self._down(F.silu(gate).mul_(up))


def unit(x: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """Return `x` (..., size) / sqrt(|x|^2 + floor^2): an RMS norm without its gain and its factor sqrt(size).

    With floor = sqrt(size x eps) that is exactly RMSNorm's epsilon. Three calls where the textbook's form takes six.
    """
    length: torch.Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.hypot_(floor)


def _floor(size: int, config: DecoderConfig) -> torch.Tensor:
    return torch.tensor(math.sqrt(size * config.rms_norm_eps))


def _norm_factor(norm: RMSNorm) -> torch.Tensor:
    """What `unit` leaves out of an RMS norm, to be folded into the columns of the matrix that follows."""
    return norm.weight.float() * math.sqrt(norm.weight.shape[0])


def _head_gains(attention: Attention, config: DecoderConfig) -> torch.Tensor:
    """The factors of the norms of queries and keys, a row a head."""
    assert attention.q_norm is not None and attention.k_norm is not None  # noqa: S101, PT018 - qk_norm is set
    q, k = _norm_factor(attention.q_norm), _norm_factor(attention.k_norm)
    return torch.cat((q.expand(config.num_attention_heads, -1), k.expand(config.num_key_value_heads, -1)))
