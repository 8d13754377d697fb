"""Log-probabilities of a few continuations after many prompts that begin alike.

What all prompts begin with (instruction, examples) is read once: the trunk. What is each prompt's own is read in
batches that branch off the trunk, and continuations of more than one token branch off the prompts again. Keys and
values of the trunk are never copied into a row's cache, and the output matrix, in a small decoder a fifth of the work,
is applied only where a continuation's token is predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rung.nets.attention import KeyValueCache

_TOKENS_AT_ONCE = 512  # more tokens a product are no faster on two cores: bench/label_scoring.py
_GATHERED_BYTES = 64 * 2**20  # keys and values of a layer, trunk included, that are put side by side for attention

Tokens = Sequence[int]


class Branches(KeyValueCache):
    """Rows that all go on from one trunk, whose keys and values stand once; `lengths` count the trunk's tokens too."""

    def __init__(self, config: Any, trunk: KeyValueCache, rows: int, room: int) -> None:
        """`trunk`: the cache of one row. `room`: tokens that each branch may get."""
        super().__init__(config, rows, room, dtype=trunk.keys.dtype, device=trunk.keys.device)
        self._config, self._trunk, self._start = config, trunk, trunk.longest
        self.lengths += self._start
        self.longest = self._start

    @property
    def capacity(self) -> int:
        """Slots a row, those of the trunk included."""
        return self._start + self.keys.shape[3]

    def write(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store what is new, and return it after the trunk's keys and values."""
        own, end = self.longest - self._start, self.longest - self._start + keys.shape[2]
        if self.ragged:
            rows = torch.arange(keys.shape[0], device=keys.device)[:, None]
            self.keys[layer][rows, :, positions - self._start] = keys.transpose(1, 2)
            self.values[layer][rows, :, positions - self._start] = values.transpose(1, 2)
        else:
            self.keys[layer, :, :, own:end] = keys
            self.values[layer, :, :, own:end] = values
        return self._joined(self._trunk.keys, self.keys, layer, end), self._joined(
            self._trunk.values, self.values, layer, end
        )

    def _joined(self, trunk: Tensor, own: Tensor, layer: int, end: int) -> Tensor:
        rows = own.shape[1]
        return torch.cat((trunk[layer, :, :, : self._start].expand(rows, -1, -1, -1), own[layer, :, :, :end]), dim=2)

    def forked(self, rows: Tensor, room: int) -> Branches:
        """New branches that begin as copies of `rows` (numbers, perhaps repeated), with `room` more slots."""
        own = self.longest - self._start
        fork = Branches(self._config, self._trunk, len(rows), own + room)
        fork.keys[:, :, :, :own] = self.keys[:, rows, :, :own]
        fork.values[:, :, :, :own] = self.values[:, rows, :, :own]
        fork.lengths, fork.longest, fork.ragged = self.lengths[rows], self.longest, self.ragged
        return fork


class BranchScorer:
    """Scores continuations under one decoder; the last trunk is kept, for the next prompts often begin like these."""

    def __init__(self, net: Any) -> None:
        """Take a `CausalLM`, or a network with its body, head and cache."""
        self._net = net
        self._trunk: tuple[Tokens, KeyValueCache] | None = None

    @torch.inference_mode()
    def score(self, prompts: Sequence[Tokens], continuations: Sequence[Tokens]) -> list[list[list[float]]]:
        """ln P of each token of each continuation after each prompt: one list a prompt, in it one a continuation.

        Prompts and continuations have at least one token, and fit the context together. In float32 a score depends on
        what is asked with it by rounding alone (below 1e-5).
        """
        if not prompts:
            return []
        start, trunk = self._trunk_of(prompts)
        own = [list(prompt[start:]) for prompt in prompts]
        found: list[list[list[float]]] = [[] for _ in prompts]
        for chosen in self._batches(own, start):
            for number, scores in zip(
                chosen, self._scored([own[n] for n in chosen], continuations, trunk), strict=True
            ):
                found[number] = scores
        return found

    def _trunk_of(self, prompts: Sequence[Tokens]) -> tuple[int, KeyValueCache]:
        """How many tokens all prompts share, and the cache of these; each prompt keeps at least one of its own."""
        shared = _common_start([prompt[:-1] for prompt in prompts])
        if self._trunk is not None:
            kept, cache = self._trunk
            if len(shared) >= len(kept) >= len(shared) // 2 and shared[: len(kept)] == kept:
                return len(kept), cache
        cache = KeyValueCache(self._net.config, 1, len(shared), dtype=self._net.compute_dtype)
        if shared:
            self._net.model(self._net.model.embed(torch.tensor([shared])), None, cache)
        self._trunk = shared, cache
        return len(shared), cache

    def _batches(self, own: Sequence[Tokens], start: int) -> Iterator[list[int]]:
        """Prompt numbers, those of like length together."""
        order = sorted(range(len(own)), key=lambda number: (len(own[number]), number))
        while order:
            batch: list[int] = []
            while order and (not batch or self._fits(len(batch) + 1, len(own[order[0]]), start)):
                batch.append(order.pop(0))
            yield batch

    def _fits(self, rows: int, length: int, start: int) -> bool:
        return rows * length <= _TOKENS_AT_ONCE and rows * (start + length) * self._slot_bytes <= _GATHERED_BYTES

    @property
    def _slot_bytes(self) -> int:
        """Of a token's keys and values in one layer."""
        config = self._net.config
        return 2 * int(config.num_key_value_heads * config.head_dim * self._net.compute_dtype.itemsize)

    def _scored(
        self, prompts: Sequence[Tokens], continuations: Sequence[Tokens], trunk: KeyValueCache
    ) -> list[list[list[float]]]:
        """The scores after one batch of prompts' own tokens."""
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        longest = int(lengths.max())
        branches = Branches(self._net.config, trunk, len(prompts), longest)
        hidden = self._read(prompts, branches)
        last = hidden[torch.arange(len(prompts)), lengths - 1]
        firsts = self._logprobs(last, torch.tensor([[tokens[0] for tokens in continuations]]).expand(len(prompts), -1))
        found = [[[score] for score in row] for row in firsts.tolist()]
        longer = [number for number, tokens in enumerate(continuations) if len(tokens) > 1]
        if longer:
            self._score_rest(found, [list(continuations[number]) for number in longer], longer, branches)
        return found

    def _score_rest(
        self,
        found: list[list[list[float]]],
        continuations: Sequence[Tokens],
        numbers: Sequence[int],
        branches: Branches,
    ) -> None:
        """Add the scores of all tokens but the first, of the continuations that have more."""
        room = max(map(len, continuations)) - 1
        width = branches.longest + room
        at_once = max(1, min(_TOKENS_AT_ONCE // room, _GATHERED_BYTES // (width * self._slot_bytes)))
        pairs = [(row, which) for row in range(len(found)) for which in range(len(continuations))]
        for begin in range(0, len(pairs), at_once):
            some = pairs[begin : begin + at_once]
            fork = branches.forked(torch.tensor([row for row, _ in some]), room)
            given = [continuations[which][:-1] for _, which in some]
            hidden = self._read(given, fork)
            places = torch.tensor([[row, place] for row, tokens in enumerate(given) for place in range(len(tokens))])
            wanted = torch.tensor([token for _, which in some for token in continuations[which][1:]])
            scores = self._logprobs(hidden[places[:, 0], places[:, 1]], wanted[:, None])[:, 0].tolist()
            for row, which in some:
                count = len(continuations[which]) - 1
                found[row][numbers[which]] += scores[:count]
                del scores[:count]

    def _read(self, rows: Sequence[Tokens], cache: KeyValueCache) -> Tensor:
        """Hidden states (rows, time, hidden) of `rows`, padded on the right."""
        longest = max(map(len, rows))
        tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        is_even = bool(mask.all())
        hidden: Tensor = self._net.model(self._net.model.embed(tokens), None if is_even else mask, cache).hidden
        return hidden

    def _logprobs(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """ln P of `tokens` (rows, some) after `hidden` (rows, hidden)."""
        scores: Tensor = self._net.lm_head(hidden).float()
        return scores.gather(1, tokens) - scores.logsumexp(dim=1, keepdim=True)


def _common_start(rows: Sequence[Tokens]) -> list[int]:
    """The longest beginning of all rows."""
    shared = list(rows[0])
    for row in rows[1:]:
        length = next((i for i, pair in enumerate(zip(shared, row, strict=False)) if pair[0] != pair[1]), len(row))
        del shared[length:]
    return shared
