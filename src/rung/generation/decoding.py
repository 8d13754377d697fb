"""One token a step, fast: a decoder's fused weights, and the keys and values of a batch of texts in one tensor.

The oracle is the network itself, `rung.nets.decoder` or `rung.nets.gpt2`: same weights, same scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

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
"""Puts new keys and values into the cache of a layer (its number) and gathers values for the queries.

From queries, keys and values (n, heads + 2 x kv heads, head_dim), as `FusedLayer` gives them: (n, heads x head_dim).
"""

_BLOCK = 192
"""Rows that go through the second half of a layer together, so that what lies between two products stays in the cache.

The products of a layer of SmolLM2 for 512 rows on two threads: 7.8 ms at once, 6.1 ms in blocks of 128 or 192, 6.6 in
blocks of 256, 7.2 in blocks of 64. The whole prompt of 512 tokens is read 1.19 times as fast in blocks of 192, 1.12
times in blocks of 128; one of 1,024 tokens 0.99 and 0.87 times.
"""


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
        time = max(map(len, prompts))
        if self._invariant:
            time = _round_up(time)
        # Padding on the right needs no mask: no token looks ahead, and what padding leaves in the cache is overwritten
        # before any later token looks there.
        tokens = torch.tensor([[*prompt, *[0] * (time - len(prompt))] for prompt in prompts], device=self.device)
        return self._read(tokens, first_row, [len(prompt) - 1 for prompt in prompts], 0)

    def keep(self, row: int, length: int) -> torch.Tensor:
        """A copy of keys and values of the first `length` tokens of a row, for `extend`.

        (layers, 2 x kv heads, length, head_dim); as the tokens behind a place change nothing before it, so is every
        beginning of it, cut along its third dimension.
        """
        return self._cache[:, row, :, :length].clone()

    def extend(self, beginning: torch.Tensor, tokens: Sequence[int], row: int) -> torch.Tensor:
        """Read `tokens` into a row, behind a text of which `keep` gave `beginning`; return scores (1, vocabulary)."""
        start = beginning.shape[2]
        self._cache[:, row, :, :start] = beginning
        return self._read(torch.tensor([list(tokens)], device=self.device), row, [len(tokens) - 1], start)

    def _read(self, tokens: torch.Tensor, first_row: int, last: Sequence[int], start: int) -> torch.Tensor:
        """Read `tokens` (count, time), the first of them at position `start`; return the scores after place `last`."""
        count, time = tokens.shape
        end = start + time
        last_place = self.config.max_position_embeddings - 1  # never a prompt's, so padding may lie there in a heap
        positions = torch.arange(start, end, device=self.device).clamp_(max=last_place)
        rows = slice(first_row, first_row + count)
        keys, values = self._keys_and_values(rows, end)
        mask: torch.Tensor | None = None
        if start > 0 or (self._window is not None and end > self._window):
            mask = self._mask(positions[None], end)
        queries = self.config.num_attention_heads

        def attend(layer: int, qkv: torch.Tensor) -> torch.Tensor:
            parts = qkv.view(count, time, -1, self.config.head_dim).transpose(1, 2)
            self._cache[layer, rows, :, start:end] = parts[:, queries:]
            gqa = queries != keys[layer].shape[1]
            mixed = F.scaled_dot_product_attention(
                parts[:, :queries], keys[layer], values[layer], mask, is_causal=mask is None, enable_gqa=gqa
            )
            return mixed.transpose(1, 2).reshape(count * time, -1)

        ends = torch.tensor([row * time + place for row, place in enumerate(last)], device=self.device)
        return self._net.scores(self._forward(tokens.flatten(), positions.repeat(count), attend, ends))

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
            mask = self._mask(places[:, None], longest)
        slots = (self._slot_offsets[: len(tokens)] + places[:, None]).flatten()
        queries, head_dim = self.config.num_attention_heads, self.config.head_dim
        groups = (len(tokens), self.config.num_key_value_heads, -1, head_dim)

        def attend(layer: int, qkv: torch.Tensor) -> torch.Tensor:
            self._cache[layer].view(-1, head_dim).index_copy_(0, slots, qkv[:, queries:].reshape(-1, head_dim))
            # The query heads that share a key head are the rows of one product: nothing is repeated.
            q = qkv[:, :queries].view(groups)
            return F.scaled_dot_product_attention(q, keys[layer], values[layer], mask).view(len(tokens), -1)

        return self._net.scores(self._forward(torch.tensor(tokens, device=self.device), places, attend))[:count]

    def move(self, source: int, target: int) -> None:
        """Copy a text's keys and values to another row."""
        self._cache[:, target] = self._cache[:, source]

    def _mask(self, positions: torch.Tensor, slots: int) -> torch.Tensor:
        """What to add to products of queries at `positions` (rows or 1, time) with the keys in the first `slots`."""
        seen = allowed_slots(positions, slots, self._window)
        return torch.zeros(seen.shape, dtype=self._dtype, device=self.device).masked_fill_(~seen, -torch.inf)

    def _keys_and_values(self, rows: slice, time: int) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Views of each layer's keys and values, (rows, kv heads, time, head_dim)."""
        split = self.config.num_key_value_heads
        return self._cache[:, rows, :split, :time].unbind(), self._cache[:, rows, split:, :time].unbind()

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, attend: Attend, wanted: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return (n, hidden) for `tokens` (n,) that stand at `positions` (n,), or of those numbered by `wanted` only.

        The last layer gives keys and values of all, and goes on with the wanted ones alone.
        """
        x, places = self._net.embed(tokens, positions)
        last = len(self._net.layers) - 1
        for number, layer in enumerate(self._net.layers):
            gathered = attend(number, layer.queries_keys_values(x, places))
            if number == last and wanted is not None:
                x, gathered = x[wanted], gathered[wanted]
            for rows, mixed in _blocks(x, gathered):
                layer.add_attention(rows, mixed)
                layer.add_mlp(rows)
        return x


def _blocks(x: torch.Tensor, gathered: torch.Tensor) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Views of as many rows of both as go through a layer's second half together."""
    if len(x) <= _BLOCK:
        return ((x, gathered),)
    return zip(torch.split(x, _BLOCK), torch.split(gathered, _BLOCK), strict=True)


def _round_up(count: int) -> int:
    return -(-count // ROW_MULTIPLE) * ROW_MULTIPLE
