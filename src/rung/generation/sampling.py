"""From scores to tokens: the usual filters, and draws that depend on nothing but a request's seed and a position.

Each filter is a threshold on the scores of a row: whatever lies below is left out, ties with the threshold stay. So the
draw is made over the vocabulary in its own order, and does not depend on how a sort broke ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rung.generation.options import SamplingOptions

_MASK = 2**64 - 1


def uniform(seed: int, position: int) -> float:
    """Return the draw in [0, 1) that belongs to `position` of a text with `seed`: splitmix64 of both.

    Counter-based, so no state is carried and no other request can shift it. The finaliser is that of Steele, Lea and
    Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), with Stafford's constants (variant 13); the
    seed is mixed first, so that neighbouring seeds are not one sequence shifted.
    """
    mixed = _mix(_mix(seed) ^ (position * 0x9E3779B97F4A7C15 & _MASK))
    return (mixed >> 16) * 2.0**-48  # 48 bits: u times a float64 sum never rounds up to the sum itself


def _mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


@dataclass(frozen=True)
class Choices:
    """The chosen `token_ids` and, from the network's untouched scores, their `logprobs`: one of each a row."""

    token_ids: list[int]
    logprobs: list[float]


class Sampler:
    """Chooses tokens for rows that may each have other options. Built once for a set of rows, used every step."""

    def __init__(self, options: Sequence[SamplingOptions], vocab_size: int, device: torch.device | str = "cpu") -> None:
        """Take one options a row. Only the first `vocab_size` tokens are ever chosen: a network may know more than its
        tokenizer, for the sake of round numbers.
        """
        self._vocab_size = vocab_size
        self._options = list(options)
        self._drawing = [not o.greedy for o in options]
        self._all_greedy = not any(self._drawing)

        def column(
            values: Sequence[float | None], neutral: float, dtype: torch.dtype = torch.float32
        ) -> torch.Tensor | None:
            if all(value is None or value == neutral for value in values):
                return None
            filled = [neutral if value is None else value for value in values]
            return torch.tensor(filled, dtype=dtype, device=device)[:, None]

        self._temperature = column([o.temperature or 1.0 for o in options], 1.0)
        self._penalty = column([o.repetition_penalty for o in options], 1.0)
        self._top_p = column([o.top_p for o in options], 1.0, torch.float64)
        self._min_p = column([o.min_p for o in options], 0.0)
        self._top_k = [o.top_k for o in options] if any(o.top_k for o in options) else None

    def choose(
        self, scores: torch.Tensor, positions: Sequence[int], histories: Sequence[Sequence[int]] | None = None
    ) -> Choices:
        """Choose the token at `positions[i]` of row `i` from `scores` (rows, vocabulary) float32.

        `histories[i]` are the row's tokens so far, prompt included; needed only with a repetition penalty.
        """
        processed = scores[:, : self._vocab_size]
        if self._penalty is not None:
            assert histories is not None  # noqa: S101 - the engine always hands them over
            processed = penalize_repetition(processed, histories, self._penalty)
        chosen = processed.argmax(-1) if self._all_greedy else self._draw(processed, positions)
        return Choices(chosen.tolist(), _logprobs(scores, chosen).tolist())

    @property
    def needs_history(self) -> bool:
        """Whether `choose` wants the tokens so far."""
        return self._penalty is not None

    def _draw(self, scores: torch.Tensor, positions: Sequence[int]) -> torch.Tensor:
        scaled = scores if self._temperature is None else scores / self._temperature
        weights = self._weights(scaled)
        draws = [
            uniform(o.seed, position) if drawing else 0.0
            for o, position, drawing in zip(self._options, positions, self._drawing, strict=True)
        ]
        drawn = draw(weights, torch.tensor(draws, dtype=torch.float64, device=scores.device))
        if all(self._drawing):
            return drawn
        return torch.where(torch.tensor(self._drawing, device=scores.device), drawn, scores.argmax(-1))

    def _weights(self, scores: torch.Tensor) -> torch.Tensor:
        """Return unnormalised probabilities (rows, vocabulary) after top-k, top-p and min-p."""
        if self._top_k is not None:
            scores = keep_top_k(scores, self._top_k)
        best = scores.amax(-1, keepdim=True)
        weights = (scores - best).exp()
        if self._top_p is not None:
            weights = keep_top_p(weights, self._top_p)
        if self._min_p is not None:
            weights = weights.masked_fill(weights < self._min_p, 0.0)  # the best token's weight is 1
        return weights


def penalize_repetition(
    scores: torch.Tensor, histories: Sequence[Sequence[int]], penalty: torch.Tensor
) -> torch.Tensor:
    """Divide positive and multiply negative `scores` (rows, vocabulary) of seen tokens by `penalty` (rows, 1)."""
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    seen = torch.zeros_like(scores, dtype=torch.bool)
    tokens = np.fromiter((token for history in histories for token in history), dtype=np.int64, count=len(rows))
    seen[torch.from_numpy(rows).to(scores.device), torch.from_numpy(tokens).to(scores.device)] = True
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def keep_top_k(scores: torch.Tensor, top_k: Sequence[int | None]) -> torch.Tensor:
    """Set all but the `top_k[i]` highest of row `i` of `scores` (rows, vocabulary) to minus infinity; ties stay."""
    size = scores.shape[1]
    places = torch.tensor([[size - min(k or size, size)] for k in top_k], device=scores.device)
    return scores.masked_fill(scores < _ascending(scores).gather(1, places), -torch.inf)


def keep_top_p(weights: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Set to zero what lies outside the smallest set of the heaviest tokens that makes up the share `top_p` (rows, 1).

    `weights` (rows, vocabulary) need not add up to 1. Nucleus sampling, arXiv 1904.09751; ties with the last stay.
    """
    ascending = _ascending(weights)
    sums = ascending.cumsum(-1, dtype=torch.float64)
    left_out = (sums <= sums[:, -1:] * (1 - top_p)).sum(-1, keepdim=True).clamp_(max=weights.shape[1] - 1)
    return weights.masked_fill(weights < ascending.gather(1, left_out), 0.0)


def _ascending(values: torch.Tensor) -> torch.Tensor:
    """Sort each row. For (16, 4096), numpy's vectorised sort takes 0.2 ms, torch's 5.7, and its top 128 alone 1.0."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
    return values.sort(dim=-1).values


def draw(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Return (rows,) the token at which the running sum of `weights` (rows, vocabulary) passes a share `uniforms`."""
    sums = weights.cumsum(-1, dtype=torch.float64)
    places = torch.searchsorted(sums, uniforms[:, None] * sums[:, -1:], right=True).squeeze(1)
    return places.clamp_(max=weights.shape[1] - 1)  # reached only by scores that are not finite, which are found later


def _logprobs(scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return scores.gather(1, chosen[:, None]).squeeze(1) - scores.logsumexp(-1)
