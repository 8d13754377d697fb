"""Beam search: the likeliest targets that are found by going on, at each step, with the best few beginnings.

The rules are those of transformers' `generate(num_beams=...)`, so that equal weights give equal targets: at each step
the 2 x `num_beams` best continuations of a source are looked at, those among the first `num_beams` that end become
hypotheses, and the best `num_beams` that do not end go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from rung.errors import UsageError
from rung.generation.target_rules import TargetRules
from rung.generation.target_steps import TargetSteps, not_finite

_NEVER_CHOSEN = -1e9  # the score of a beam that does not exist yet; finite, as in transformers: no NaN comes of it
_BLOCK = 64  # scores whose maximum is looked at before they are


@dataclass(frozen=True)
class BeamOptions:
    """How targets are searched for. UsageError for values out of range.

    A hypothesis' score is the sum of its tokens' log-probabilities divided by length^`length_penalty`, its length
    counting the end token: above 0 favours long targets, 0 compares sums. A source is finished when it has `num_beams`
    hypotheses and `early_stopping` is True; when it has, and the best target that goes on would score below the worst
    of them even if it ended now (False); or could end at `max_tokens` ("never").
    """

    num_beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    max_tokens: int = 200

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("num_beams", "max_tokens"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}", where=name)
        if not -10 <= self.length_penalty <= 10:  # also refuses NaN
            raise UsageError(
                f"length_penalty must be from -10 to 10, not {self.length_penalty}", where="length_penalty"
            )
        if self.early_stopping not in (True, False, "never"):
            problem = f"early_stopping must be true, false or 'never', not {self.early_stopping!r}"
            raise UsageError(problem, where="early_stopping")


@dataclass(frozen=True)
class Hypothesis:
    """A target: `token_ids`, with the end token where it has one. `score` is what beams are compared by, `logprob` its
    sum alone.

    `finished` is false when its limit of tokens ended it.
    """

    token_ids: list[int]
    score: float
    logprob: float
    finished: bool


def search(
    steps: TargetSteps,
    sources: Sequence[Sequence[int]],
    limits: Sequence[int],
    options: BeamOptions,
    rules: TargetRules,
    *,
    device: torch.device,
) -> list[list[Hypothesis]]:
    """Return `num_beams` hypotheses of each of `sources`, best first.

    A source's targets have at most as many tokens as its `limits` say. GenerationError when the network's scores are
    not finite.
    """
    steps.open(sources, options.num_beams)
    beams = _Beams(torch.tensor(limits, device=device), options, rules)
    results: list[list[Hypothesis]] = [[] for _ in sources]
    present = list(range(len(sources)))  # whose beams the rows are
    while True:
        parents = beams.extend(steps.step(beams.last))
        live = beams.live()
        for place in (~live).nonzero().flatten().tolist():
            results[present[place]] = beams.hypotheses(place)
        remaining = int(live.sum())
        if not remaining:
            return results
        steps.select(parents)
        if remaining < len(present):  # rows of finished sources would take more time than moving the others together
            kept = live.nonzero().flatten()
            present = [present[place] for place in kept.tolist()]
            beams.keep(kept)
            steps.keep(kept)


class _Beams:
    """The beams of some sources, best first: (sources, beams) everywhere, with the tokens of each as a last dimension.

    `last` are the last tokens of what goes on, `_sums` its log-probabilities. What ended is kept apart, with a score of
    -1e9 where there is no hypothesis yet.
    """

    def __init__(self, limits: torch.Tensor, options: BeamOptions, rules: TargetRules) -> None:
        self._limits, self._options, self._rules = limits, options, rules
        shape, device = (len(limits), options.num_beams), limits.device
        self._tokens = torch.empty((*shape, 0), dtype=torch.int64, device=device)
        self.last = torch.full(shape, rules.start, device=device)
        # All beams are the same at first, so that only one of them may go on.
        self._sums = torch.full(shape, _NEVER_CHOSEN, device=device)
        self._sums[:, 0] = 0.0
        self._ended = self._tokens
        self._ended_scores = torch.full(shape, _NEVER_CHOSEN, device=device)
        self._ended_sums = torch.zeros(shape, device=device)
        self._ended_lengths = torch.zeros(shape, dtype=torch.int64, device=device)

    def extend(self, scores: torch.Tensor) -> torch.Tensor:
        """Go on by a token, with `scores` (sources x beams, vocabulary), and return each beam's parent."""
        beams = self._options.num_beams
        last = self._limits == self._tokens.shape[2] + 1
        if self._rules.forced_end and bool(last.any()):  # then the next token is the end token, at no cost
            own = torch.arange(beams, device=last.device).expand_as(self.last)
            self._collect(self._sums, own, torch.full_like(self.last, self._rules.end), last[:, None])
        logprobs = self._rules.apply(scores.log_softmax(-1), self._tokens.flatten(0, 1))
        best, tokens = best_of_rows(logprobs, min(2 * beams, logprobs.shape[1]))
        totals = (best.view(*self._sums.shape, -1) + self._sums[:, :, None]).flatten(1)
        totals, places = totals.topk(2 * beams, -1)
        if bool(totals.isnan().any()):
            raise not_finite()
        parents, tokens = places // best.shape[1], tokens.view(len(places), -1).gather(1, places)
        ends = tokens == self._rules.end
        taken = ends & ~last[:, None] if self._rules.forced_end else ends | last[:, None]
        if bool(taken[:, :beams].any()):
            self._collect(totals[:, :beams], parents[:, :beams], tokens[:, :beams], taken[:, :beams])
        order = ends.byte().argsort(stable=True, dim=-1)[:, :beams]  # the best that do not end
        parents, self.last = parents.gather(1, order), tokens.gather(1, order)
        self._sums = (totals + ends * _NEVER_CHOSEN).gather(1, order)
        self._tokens = torch.cat((_gather(self._tokens, parents), self.last[:, :, None]), dim=-1)
        return parents

    def live(self) -> torch.Tensor:
        """Whose search may still find a better hypothesis: (sources,)."""
        options = self._options
        full = (self._ended_lengths > 0).all(1)
        length = self._tokens.shape[2]
        live = ~full
        if options.early_stopping is not True:
            longest = options.early_stopping == "never" and options.length_penalty > 0
            reachable = self._sums[:, 0] / (self._limits if longest else length) ** options.length_penalty
            live |= reachable > self._ended_scores[:, -1]
        return live & (self._limits > length)

    def keep(self, sources: torch.Tensor) -> None:
        """Forget all but these sources."""
        for name in (
            "_limits",
            "_tokens",
            "last",
            "_sums",
            "_ended",
            "_ended_scores",
            "_ended_sums",
            "_ended_lengths",
        ):
            setattr(self, name, getattr(self, name)[sources])

    def hypotheses(self, source: int) -> list[Hypothesis]:
        """What ended, best first."""
        rows = zip(
            self._ended[source].tolist(),
            self._ended_lengths[source].tolist(),
            self._ended_scores[source].tolist(),
            self._ended_sums[source].tolist(),
            strict=True,
        )
        limit = int(self._limits[source])
        return [
            Hypothesis(ids[:length], score, total, self._finished(ids[:length], limit))
            for ids, length, score, total in rows
            if length
        ]

    def _finished(self, ids: list[int], limit: int) -> bool:
        return ids[-1] == self._rules.end and (len(ids) < limit or not self._rules.forced_end)

    def _collect(self, totals: torch.Tensor, parents: torch.Tensor, tokens: torch.Tensor, taken: torch.Tensor) -> None:
        """Take beams with their next `tokens` as hypotheses, where they are among the best of their source."""
        length = self._tokens.shape[2] + 1
        scores = torch.where(taken, totals / length**self._options.length_penalty, _NEVER_CHOSEN)
        scores, places = torch.cat((self._ended_scores, scores), dim=1).topk(self._options.num_beams, -1)
        ended = torch.cat((_gather(self._tokens, parents), tokens[:, :, None]), dim=-1)
        ended = torch.cat((F.pad(self._ended, (0, length - self._ended.shape[2])), ended), dim=1)
        self._ended, self._ended_scores = _gather(ended, places), scores
        self._ended_sums = torch.cat((self._ended_sums, totals), dim=1).gather(1, places)
        lengths = torch.cat((self._ended_lengths, (taken * length).expand_as(totals)), dim=1)
        self._ended_lengths = lengths.gather(1, places)


def best_of_rows(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `count` highest of each row of `scores` (rows, columns) and their columns, highest first.

    Whatever is among them lies in one of the `count` blocks with the highest maxima. Taking the maxima of (256, 8000)
    and looking into 8 of the 125 blocks takes 2.4 ms on one thread of a CPU, `topk` of everything 5.8.
    """
    rows, columns = scores.shape
    blocks = columns // _BLOCK
    if scores.device.type != "cpu" or blocks <= 2 * count:
        values, places = scores.topk(count, -1)
        return values, places
    blocked = scores[:, : blocks * _BLOCK].view(rows, blocks, _BLOCK)
    chosen = blocked.amax(-1).topk(count, -1).indices
    columns_of = (chosen[:, :, None] * _BLOCK + torch.arange(_BLOCK)).flatten(1)
    rest = torch.arange(blocks * _BLOCK, columns).expand(rows, -1)
    columns_of = torch.cat((columns_of, rest), dim=1)
    values, places = scores.gather(1, columns_of).topk(count, -1)
    return values, columns_of.gather(1, places)


def _gather(tokens: torch.Tensor, beams: torch.Tensor) -> torch.Tensor:
    """Of `tokens` (sources, beams, time), those of `beams` (sources, n): (sources, n, time)."""
    return tokens.gather(1, beams[:, :, None].expand(-1, -1, tokens.shape[2]))
