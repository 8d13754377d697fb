"""Tests of two systems on the same items, and corrections for many tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from rung.errors import EvaluationError
from rung.evaluation.intervals import ROUNDING
from rung.evaluation.summed import SummedScores, require_paired
from rung.records import ItemScores, paired

SWAPS = 10_000
_CHUNK = 4_000_000  # counts held in memory at a time

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class McNemar:
    """The exact test that two systems are right equally often: items that only one of them got right, and p-values.

    `p` is exact (conditional binomial, two-sided) and therefore conservative; `mid_p` (Lancaster 1961) counts only half
    of the probability of what was observed and is close to uniform under the null, where `p` piles up at 1.
    """

    only_first: int
    only_second: int
    p: float
    mid_p: float


def mcnemar(first: ItemScores, second: ItemScores) -> McNemar:
    """Test two sets of 0/1 scores. Raises EvaluationError for other scores, or over different items."""
    first, second = paired(first, second)
    for scores in (first, second):
        if not (np.isin(scores.values, (0.0, 1.0)).all() and (scores.weights == 1).all()):
            raise EvaluationError("McNemar's test needs a 0 or 1 for each item")
    right, other = first.values == 1, second.values == 1
    return mcnemar_counts(int((right & ~other).sum()), int((other & ~right).sum()))


def mcnemar_counts(only_first: int, only_second: int) -> McNemar:
    """Test from the two discordant counts (McNemar 1947, exact as in Fagerland, Lydersen and Laake 2013)."""
    discordant, fewer = only_first + only_second, min(only_first, only_second)
    if not discordant:
        return McNemar(only_first, only_second, p=1.0, mid_p=1.0)
    p = min(1.0, 2 * float(bdtr(fewer, discordant, 0.5)))
    observed = float(bdtr(fewer, discordant, 0.5)) - (float(bdtr(fewer - 1, discordant, 0.5)) if fewer else 0.0)
    mid_p = 1 - observed / 2 if only_first == only_second else p - observed
    return McNemar(only_first, only_second, p=p, mid_p=mid_p)


def approximate_randomisation(first: SummedScores, second: SummedScores, *, seed: int = 0, swaps: int = SWAPS) -> float:
    """Return the two-sided p that the metric of two systems differs (Noreen 1989; Yeh 2000 for F1).

    Each of `swaps` rounds exchanges the two systems' answers on a random half of the items. The observed assignment
    counts as one round, so p is never 0. Raises EvaluationError when the two are not over the same items.
    """
    require_paired([first, second])
    patterns, counts = np.unique(np.stack([first.codes, second.codes], axis=1), axis=0, return_counts=True)
    own, other = first.rows[patterns[:, 0]], second.rows[patterns[:, 1]]
    changes = (own != other).any(axis=1)
    exchange = (other - own)[changes]  # what exchanging one item of a pattern adds to the first system's totals
    counts = counts[changes]
    generator = np.random.default_rng(seed)
    observed = abs(first.value - second.value)
    as_extreme, rows = 1, max(1, _CHUNK // max(len(counts), 1))
    for done in range(0, swaps, rows):
        exchanged = generator.binomial(counts, 0.5, size=(min(rows, swaps - done), len(counts))) @ exchange
        differences = first.metric(first.totals + exchanged) - second.metric(second.totals - exchanged)
        as_extreme += int((np.abs(differences) >= observed - ROUNDING).sum())
    return as_extreme / (swaps + 1)


def holm(p_values: Sequence[float]) -> Floats:
    """Adjust p-values so that all of them together err at the level of one (Holm 1979)."""
    p, count = np.asarray(p_values, dtype=np.float64), len(p_values)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate((count - np.arange(count)) * p[order])
    return _in_order(np.minimum(steps, 1.0), order)


def benjamini_hochberg(p_values: Sequence[float]) -> Floats:
    """Adjust p-values so that the expected share of false ones among those found is bounded (1995)."""
    p, count = np.asarray(p_values, dtype=np.float64), len(p_values)
    order = np.argsort(p, kind="stable")
    steps = np.minimum.accumulate((p[order] * count / np.arange(1, count + 1))[::-1])[::-1]
    return _in_order(np.minimum(steps, 1.0), order)


def _in_order(adjusted: Floats, order: NDArray[np.int64]) -> Floats:
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result
