"""One token a step, fast: a decoder's weights fused once, and a step of few, large operations.

At the sizes that Rung trains, a step's time goes into calling operations rather than into arithmetic. So query, key
and value are one product and so are gate and up; norm gains are folded into the matrices that follow them; queries and
keys are normed and rotated together; and keys and values live in one tensor of fixed size. The oracle is
`rung.nets.decoder`: same weights, same scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F

from rung.generation.matrices import ROW_MULTIPLE, Matrix, Precision, matrix
from rung.nets.decoder import Attention, CausalLM, DecoderLayer, RMSNorm
from rung.nets.decoder_config import DecoderConfig

Attend = Callable[[int, torch.Tensor], torch.Tensor]
"""Gathers values from the cache of a layer (its number) for queries (n, heads, head_dim): (n, heads x head_dim)."""


class FusedDecoder:
    """A decoder's weights as a step wants them, and the keys and values of a batch of texts.

    All is computed in the dtype of `precision`, as in `transformers`; only scores are float32 in any case. With
    `invariant`, a text's scores have the same bits whatever else is in the batch: rows of products are padded to
    `ROW_MULTIPLE`, prompts are read one at a time, and attention always spans the whole context.
    """

    def __init__(self, net: CausalLM, precision: Precision, *, invariant: bool) -> None:
        self.config = config = net.config
        self._invariant = invariant
        self._dtype = torch.float32 if precision == "fp32" else torch.bfloat16

        make = partial(matrix, precision=precision)
        with torch.inference_mode():
            self._embedding = net.model.embed_tokens.weight.detach().to(self._dtype)
            self._layers = [_Layer(cast(DecoderLayer, layer), config, make, self._dtype) for layer in net.model.layers]
            self._head = make(net.lm_head.weight.float() * _norm_factor(net.model.norm))
            cos, sin = net.model.rotary.float()[:, :, None]
            # Half-rotation: (a, b) -> (a cos - b sin, b cos + a sin). (positions, cos and sin, 1, head_dim)
            rotary = torch.stack((torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)), dim=1)
            self._rotary = rotary.to(self._dtype)
            self._hidden_floor = _floor(config.hidden_size, config).to(self.device, self._dtype)
            self._head_floor = _floor(config.head_dim, config).to(self.device, self._dtype)
        self._cache = torch.empty(0)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._embedding.device

    @property
    def context_length(self) -> int:
        """Tokens that prompt and text may have together."""
        return self.config.max_position_embeddings

    @property
    def vocab_size(self) -> int:
        """Columns of the scores."""
        return self.config.vocab_size

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The end-of-text tokens of `config.json`."""
        configured = self.config.eos_token_id
        return frozenset((configured,) if isinstance(configured, int) else configured or ())

    def open(self, rows: int, capacity: int) -> None:
        """Make room for `rows` texts of `capacity` tokens; what was there before is gone."""
        config = self.config
        if self._invariant:
            rows, capacity = _round_up(rows), _round_up(config.max_position_embeddings)
        shape = (config.num_hidden_layers, rows, 2 * config.num_key_value_heads, capacity, config.head_dim)
        if self._cache.shape != shape:
            # Zeros: a masked slot enters a product with weight 0, and 0 x NaN would be NaN.
            self._cache = torch.zeros(shape, dtype=self._dtype, device=self.device)
        heads = torch.arange(rows * shape[2], device=self.device).view(rows, shape[2])
        self._slot_offsets = heads * capacity

    def prefill(self, prompts: Sequence[Sequence[int]], first_row: int) -> torch.Tensor:
        """Read `prompts` into the rows from `first_row` on; return the scores (prompts, vocabulary) after each."""
        if self._invariant and len(prompts) > 1:
            return torch.cat([self.prefill([prompt], first_row + i) for i, prompt in enumerate(prompts)])
        count, time = len(prompts), max(map(len, prompts))
        if self._invariant:
            time = _round_up(time)
        # Padding on the right needs no mask: no token looks ahead, and what padding leaves in the cache is overwritten
        # before any later token looks there.
        tokens = torch.tensor([[*prompt, *[0] * (time - len(prompt))] for prompt in prompts], device=self.device)
        last_place = self.config.max_position_embeddings - 1  # never a prompt's, so padding may lie there in a heap
        positions = torch.arange(time, device=self.device).clamp_(max=last_place).repeat(count)
        rows = torch.arange(first_row, first_row + count, device=self.device).repeat_interleave(time)
        keys, values = self._keys_and_values(slice(first_row, first_row + count), time)

        def attend(layer: int, q: torch.Tensor) -> torch.Tensor:
            q = q.view(count, time, -1, self.config.head_dim).transpose(1, 2)
            gqa = q.shape[1] != keys[layer].shape[1]
            mixed = F.scaled_dot_product_attention(q, keys[layer], values[layer], is_causal=True, enable_gqa=gqa)
            return mixed.transpose(1, 2).reshape(count * time, -1)

        hidden = self._forward(tokens.flatten(), positions, rows, attend)
        last = torch.tensor([row * time + len(prompt) - 1 for row, prompt in enumerate(prompts)], device=self.device)
        return self._scores(hidden[last])

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Read one token a row, at its position; return the scores (rows, vocabulary) of the token after it."""
        count = len(tokens)
        if self._invariant:
            padding = [0] * (_round_up(count) - count)
            tokens, positions = [*tokens, *padding], [*positions, *padding]
        places = torch.tensor(positions, device=self.device)
        longest = self._cache.shape[3] if self._invariant else max(positions) + 1
        keys, values = self._keys_and_values(slice(0, len(tokens)), longest)
        mask: torch.Tensor | None = None
        if self._invariant or min(positions) + 1 < longest:
            seen = torch.arange(longest, device=self.device) <= places[:, None]
            mask = torch.zeros(seen.shape, dtype=self._dtype, device=self.device).masked_fill_(~seen, -torch.inf)
            mask = mask[:, None, None]
        groups = (len(tokens), self.config.num_key_value_heads, -1, self.config.head_dim)

        def attend(layer: int, q: torch.Tensor) -> torch.Tensor:
            # The query heads that share a key head are the rows of one product: nothing is repeated.
            mixed = F.scaled_dot_product_attention(q.view(groups), keys[layer], values[layer], mask)
            return mixed.view(len(tokens), -1)

        rows = torch.arange(len(tokens), device=self.device)
        hidden = self._forward(torch.tensor(tokens, device=self.device), places, rows, attend)
        return self._scores(hidden)[:count]

    def move(self, source: int, target: int) -> None:
        """Copy a text's keys and values to another row."""
        self._cache[:, target] = self._cache[:, source]

    def _keys_and_values(self, rows: slice, time: int) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Views of each layer's keys and values, (rows, kv heads, time, head_dim)."""
        split = self.config.num_key_value_heads
        return self._cache[:, rows, :split, :time].unbind(), self._cache[:, rows, split:, :time].unbind()

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        """Return (n, hidden) for `tokens` (n,) that stand at `positions` (n,) of the texts in `rows` (n,)."""
        slots = (self._slot_offsets[rows] + positions[:, None]).flatten()
        cos, sin = self._rotary[positions].unbind(1)
        step = _Step(cos, sin, slots, self._hidden_floor, self._head_floor)
        x = self._embedding[tokens]
        for number, layer in enumerate(self._layers):
            slots_of_layer = self._cache[number].view(-1, self.config.head_dim)
            layer.attention(x, step, slots_of_layer, partial(attend, number))
            layer.mlp(x, step)
        return x

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._head(unit(hidden, self._hidden_floor)).float()


class _Layer:
    """The fused weights of one layer; both halves add to the residual stream `x` (n, hidden) in place."""

    def __init__(
        self,
        layer: DecoderLayer,
        config: DecoderConfig,
        make: Callable[[torch.Tensor], Matrix],
        dtype: torch.dtype,
    ) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        before, after = (_norm_factor(norm) for norm in (layer.input_layernorm, layer.post_attention_layernorm))
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._qkv = make(torch.cat([projection.weight for projection in projections]).float() * before)
        self._qkv_bias = torch.cat([p.bias for p in projections]).to(dtype) if config.qkv_bias else None
        self._o = make(attention.o_proj.weight)
        self._o_bias = attention.o_proj.bias.to(dtype) if config.o_bias else None
        self._gate_up = make(torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)).float() * after)
        self._down = make(mlp.down_proj.weight)
        self._head_gains = _head_gains(attention, config).to(dtype) if config.qk_norm else None
        self._config = config

    def attention(
        self, x: torch.Tensor, step: _Step, cache: torch.Tensor, attend: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        """Write keys and values of `x` to `cache` (slots, head_dim), then add what its queries gather."""
        config, queries = self._config, self._config.num_attention_heads
        qkv = self._qkv(unit(x, step.hidden_floor))
        if self._qkv_bias is not None:
            qkv += self._qkv_bias
        qkv = qkv.view(len(x), -1, config.head_dim)
        turned = qkv[:, : queries + config.num_key_value_heads]
        normed = turned if self._head_gains is None else unit(turned, step.head_floor).mul_(self._head_gains)
        torch.addcmul(normed * step.cos, normed.roll(config.head_dim // 2, -1), step.sin, out=turned)
        cache.index_copy_(0, step.slots, qkv[:, queries:].reshape(-1, config.head_dim))
        x += self._o(attend(qkv[:, :queries]))
        if self._o_bias is not None:
            x += self._o_bias

    def mlp(self, x: torch.Tensor, step: _Step) -> None:
        """Add the SwiGLU of the normed `x`."""
        gate, up = self._gate_up(unit(x, step.hidden_floor)).chunk(2, -1)
        x += self._down(F.silu(gate).mul_(up))


class _Step(NamedTuple):
    """What all layers of one forward pass share."""

    cos: torch.Tensor  # (n, 1, head_dim)
    sin: torch.Tensor  # the same, its first half negated
    slots: torch.Tensor  # (n x 2 kv heads,): where in a layer's cache each new key and value goes
    hidden_floor: torch.Tensor
    head_floor: torch.Tensor


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


def _round_up(count: int) -> int:
    return -(-count // ROW_MULTIPLE) * ROW_MULTIPLE
