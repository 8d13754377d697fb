"""The fused weights of GPT-2: gains and shifts of the layer norms are folded into the products that follow them."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F

from rung.generation.matrices import MakeMatrix, Matrix, Precision, dtype_of, matrices_of
from rung.nets.gpt2 import GPT2LM, Block
from rung.nets.gpt2_config import GPT2Config
from rung.nets.layers import LayerNorm, Linear


class FusedGPT2:
    """See `rung.generation.fused.FusedNet`."""

    def __init__(self, net: GPT2LM, precision: Precision) -> None:
        dtype, body = dtype_of(precision), net.transformer
        make = matrices_of(precision)
        self._tokens, self._positions = (table.weight.detach().to(dtype) for table in (body.wte, body.wpe))
        self.layers = [_Layer(cast(Block, block), net.config, make) for block in body.h]
        self._head = _after_norm(body.ln_f, net.lm_head, make)
        self._eps = net.config.layer_norm_epsilon

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._tokens.device

    def embed(self, tokens: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the sum of token and position; layers need no more of places."""
        return self._tokens[tokens] + self._positions[positions], None

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """Norm and output matrix."""
        return self._head(_standard(hidden, self._eps)).float()


class _Layer:
    """The fused weights of one layer."""

    def __init__(self, block: Block, config: GPT2Config, make: MakeMatrix) -> None:
        self._qkv = _after_norm(block.ln_1, block.attn.c_attn, make)
        self._o = make(block.attn.c_proj.weight, block.attn.c_proj.bias)
        self._up = _after_norm(block.ln_2, block.mlp.c_fc, make)
        self._down = make(block.mlp.c_proj.weight, block.mlp.c_proj.bias)
        self._activation, self._eps, self._head_dim = block.mlp.activation, config.layer_norm_epsilon, config.head_dim

    def queries_keys_values(self, x: torch.Tensor, places: None) -> torch.Tensor:  # noqa: ARG002 - as of all families
        """One product."""
        return self._qkv(_standard(x, self._eps)).view(len(x), -1, self._head_dim)

    def add_attention(self, x: torch.Tensor, mixed: torch.Tensor) -> None:
        """The output projection."""
        x += self._o(mixed)

    def add_mlp(self, x: torch.Tensor) -> None:
        """Two products."""
        x += self._down(self._activation(self._up(_standard(x, self._eps))))


def _standard(x: torch.Tensor, eps: float) -> torch.Tensor:
    """A layer norm without its gain and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def _after_norm(norm: LayerNorm, linear: Linear, make: MakeMatrix) -> Matrix:
    """The product that follows a norm, with what `_standard` leaves out of that: W (g x + b) = (W g) x + W b."""
    weight = linear.weight.float()
    shift = weight @ norm.bias.float()
    return make(weight * norm.weight.float(), shift if linear.bias is None else shift + linear.bias.float())
