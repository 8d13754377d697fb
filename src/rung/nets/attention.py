"""Rotary positions, the key-value cache, and attention over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from rung.errors import GenerationError

if TYPE_CHECKING:
    from rung.nets.decoder_config import DecoderConfig


def rotary_table(positions: int, head_dim: int, theta: float) -> torch.Tensor:
    """Return cosines and sines, (2, positions, head_dim) float32, each half repeated (half-rotation order).

    RoFormer, arXiv 2104.09864, section 3.4.2; the halves are in Hugging Face's order: no weight is ever permuted.
    """
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies).repeat(1, 2)
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate `x` (..., time, heads, head_dim) by cosines and sines that broadcast to it."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class KeyValueCache:
    """Keys and values of the tokens already seen, in tensors of fixed size that steps write into.

    Row `i` holds `lengths[i]` tokens in slots 0 .. lengths[i] - 1, so rows may differ in length. To start a batch, pad
    prompts on the *right*, pass `mask` (batch, time), and take row `i`'s scores at `mask[i].sum() - 1`; what padding
    wrote is overwritten by the next tokens and never attended to. A step then passes one token (batch, 1), no mask.

    `keys`, `values`: (layers, batch, kv heads, capacity, head_dim). `lengths`: (batch,) int64. `longest`: an upper
    bound of `lengths` known without reading the tensor; attention looks at the first `longest` slots only.
    `ragged`: whether a mask was ever given, so that rows may differ.
    """

    def __init__(
        self,
        config: DecoderConfig,
        batch_size: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make room for `capacity` tokens a row. GenerationError if the network knows fewer positions than that."""
        if capacity > config.max_position_embeddings:
            raise GenerationError(
                f"{capacity} tokens do not fit this network's {config.max_position_embeddings} positions",
                hint="shorten the prompt or ask for fewer tokens",
            )
        shape = (config.num_hidden_layers, batch_size, config.num_key_value_heads, capacity, config.head_dim)
        # Zeros, not empty: masked slots enter products with weight 0, and 0 x NaN would be NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self.longest = 0
        self.ragged = False

    @property
    def capacity(self) -> int:
        """Slots a row."""
        return self.keys.shape[3]

    def positions(self, time: int) -> torch.Tensor:
        """Return the positions of the next `time` tokens of each row: (batch, time), or (1, time) when rows agree."""
        if self.ragged:
            return self.lengths[:, None] + torch.arange(time, device=self.lengths.device)
        return torch.arange(self.longest, self.longest + time, device=self.lengths.device)[None]

    def write(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values (batch, kv heads, time, head_dim) and return all up to the longest row's end."""
        end = self.longest + keys.shape[2]
        if end > self.capacity:
            raise GenerationError(f"the key-value cache holds {self.capacity} tokens, {end} were given")
        if self.ragged:
            rows = torch.arange(keys.shape[0], device=keys.device)[:, None]
            self.keys[layer][rows, :, positions] = keys.transpose(1, 2)
            self.values[layer][rows, :, positions] = values.transpose(1, 2)
        else:
            self.keys[layer, :, :, self.longest : end] = keys
            self.values[layer, :, :, self.longest : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, time: int, mask: torch.Tensor | None) -> None:
        """Count `time` new tokens a row, or, with a right-padded `mask` (batch, time), as many as are real."""
        if mask is None:
            self.lengths += time
        else:
            self.lengths += mask.sum(dim=1)
            self.ragged = True
        self.longest += time


def causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attend to this and earlier positions. q (batch, heads, time, head_dim); k, v may have fewer heads (GQA)."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


def masked_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
    """Attend where `allowed` (batch or 1, 1, queries, keys) is true, or everywhere; shapes as in `causal_attention`."""
    groups = q.shape[1] // k.shape[1]
    if q.shape[2] == 1 and groups > 1:
        # One token a row: the query heads of a group become the rows of one product, and nothing is repeated.
        grouped = q.reshape(q.shape[0], k.shape[1], groups, q.shape[3])
        return F.scaled_dot_product_attention(grouped, k, v, attn_mask=allowed).reshape(q.shape)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, enable_gqa=groups > 1)


def allowed_keys(mask: torch.Tensor) -> torch.Tensor:
    """Return (batch, 1, time, time): causal, real keys only, and every position sees itself so that no row is empty."""
    time = mask.shape[1]
    causal = torch.ones(time, time, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(time, dtype=torch.bool, device=mask.device)
    return ((mask.bool()[:, None, :] & causal) | itself)[:, None]


def allowed_slots(positions: torch.Tensor, slots: int) -> torch.Tensor:
    """Return (batch or 1, 1, time, slots): a token at position p sees cache slots 0 .. p."""
    return (torch.arange(slots, device=positions.device) <= positions[:, :, None])[:, None]
