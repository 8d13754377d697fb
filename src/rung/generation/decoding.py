"""One token a step, fast: a decoder's fused weights, and the keys and values of a batch of texts in one tensor.

The oracle is the network itself, `rung.nets.decoder` or `rung.nets.gpt2`: same weights, same scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from rung.generation.fused import FusedNet
from rung.generation.fused_gpt2 import FusedGPT2
from rung.generation.fused_rotary import FusedRotary
from rung.generation.matrices import ROW_MULTIPLE, Precision, dtype_of
from rung.nets.attention import allowed_slots
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.gpt2 import GPT2LM

Attend = Callable[[int, torch.Tensor], torch.Tensor]
"""Gathers values from the cache of a layer (its number) for queries (n, heads, head_dim): (n, heads x head_dim)."""


class FusedDecoder:
    """A decoder's weights as a step wants them, and the keys and values of a batch of texts.

    All is computed in the dtype of `precision`, as in `transformers`; only scores are float32 in any case. With
    `invariant`, a text's scores have the same bits whatever else is in the batch: rows of products are padded to
    `ROW_MULTIPLE`, prompts are read one at a time, and attention always spans the whole context.
    """

    def __init__(self, net: CausalLM | GPT2LM, precision: Precision, *, invariant: bool) -> None:
        self.config = config = net.config
        self._invariant = invariant
        self._dtype = dtype_of(precision)
        self._window = config.sliding_window if isinstance(config, DecoderConfig) else None
        with torch.inference_mode():
            self._net: FusedNet = (
                FusedRotary(net, precision) if isinstance(net, CausalLM) else FusedGPT2(net, precision)
            )
        self._cache = torch.empty(0)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._net.device

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
        narrow: torch.Tensor | None = None
        if self._window is not None and time > self._window:
            narrow = allowed_slots(torch.arange(time, device=self.device)[None], time, self._window)

        def attend(layer: int, q: torch.Tensor) -> torch.Tensor:
            q = q.view(count, time, -1, self.config.head_dim).transpose(1, 2)
            gqa = q.shape[1] != keys[layer].shape[1]
            mixed = F.scaled_dot_product_attention(
                q, keys[layer], values[layer], narrow, is_causal=narrow is None, enable_gqa=gqa
            )
            return mixed.transpose(1, 2).reshape(count * time, -1)

        hidden = self._forward(tokens.flatten(), positions, rows, attend)
        last = torch.tensor([row * time + len(prompt) - 1 for row, prompt in enumerate(prompts)], device=self.device)
        return self._net.scores(hidden[last])

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
        outside = self._window is not None and longest > self._window
        if self._invariant or outside or min(positions) + 1 < longest:
            seen = allowed_slots(places[:, None], longest, self._window)
            mask = torch.zeros(seen.shape, dtype=self._dtype, device=self.device).masked_fill_(~seen, -torch.inf)
        groups = (len(tokens), self.config.num_key_value_heads, -1, self.config.head_dim)

        def attend(layer: int, q: torch.Tensor) -> torch.Tensor:
            # The query heads that share a key head are the rows of one product: nothing is repeated.
            mixed = F.scaled_dot_product_attention(q.view(groups), keys[layer], values[layer], mask)
            return mixed.view(len(tokens), -1)

        rows = torch.arange(len(tokens), device=self.device)
        hidden = self._forward(torch.tensor(tokens, device=self.device), places, rows, attend)
        return self._net.scores(hidden)[:count]

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
        queries = self.config.num_attention_heads
        x, places = self._net.embed(tokens, positions)
        for number, layer in enumerate(self._net.layers):
            qkv = layer.queries_keys_values(x, places)
            cache = self._cache[number].view(-1, self.config.head_dim)
            cache.index_copy_(0, slots, qkv[:, queries:].reshape(-1, self.config.head_dim))
            layer.add_attention(x, attend(number, qkv[:, :queries]))
            layer.add_mlp(x)
        return x


def _round_up(count: int) -> int:
    return -(-count // ROW_MULTIPLE) * ROW_MULTIPLE
