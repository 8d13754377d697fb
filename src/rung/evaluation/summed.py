"""Metrics that are functions of sums over items, and their bootstrap.

Accuracy, macro-F1, Matthews' correlation, log-loss and bits per byte all have this form: every item adds a row of
numbers, the rows are added up, and the metric is computed from the totals. Items that add the same row are
interchangeable, so a resample of all items is one multinomial draw over the distinct rows: the same distribution as
drawing items one by one, at a cost that does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rung.errors import EvaluationError
from rung.records import ItemScores, require_same_items

RESAMPLES = 10_000
_CHUNK = 60_000  # counts at a time: they stay in the cache, which makes drawing items half as fast again
_SPARSE = 32  # columns from which rows of counts (three ones among 3 x classes) are multiplied as sparse ones

Floats = NDArray[np.float64]
Metric = Callable[[Floats], Floats]
"""From totals (..., k) to values (...)."""


class SummedScores:
    """What each item adds to the totals of one metric.

    `ids` (n strings) are kept in sorted order whatever order they come in, so that no result depends on the order of
    items; item i adds `rows[codes[i]]`, with `rows` (distinct, k) float64.
    """

    def __init__(self, ids: list[str], codes: NDArray[np.int64], rows: Floats, metric: Metric) -> None:
        if len(ids) != len(codes):
            raise EvaluationError(f"{len(ids)} ids and {len(codes)} scores do not match")
        if len(set(ids)) != len(ids):
            raise EvaluationError("item ids are not unique, so scores could not be paired")
        order = sorted(range(len(ids)), key=ids.__getitem__)
        self.ids = [ids[index] for index in order]
        self.codes = codes[order]
        self.rows = rows
        self.metric = metric

    @classmethod
    def of_items(cls, scores: ItemScores) -> Self:
        """The ratio of sums that `ItemScores` stand for."""
        rows, codes = np.unique(np.stack([scores.values, scores.weights], axis=1), axis=0, return_inverse=True)
        return cls(scores.ids, codes.reshape(-1).astype(np.int64), rows, ratio)

    @property
    def value(self) -> float:
        """The metric over all items."""
        return float(self.metric(self.totals))

    @property
    def totals(self) -> Floats:
        """(k,) sums over all items."""
        counts = np.bincount(self.codes, minlength=len(self.rows)).astype(np.float64)
        return counts @ self.rows

    def among(self, ids: Collection[str]) -> SummedScores:
        """The scores of those items that are in `ids`."""
        kept = np.array([index for index, item in enumerate(self.ids) if item in ids], dtype=np.int64)
        return SummedScores([self.ids[index] for index in kept], self.codes[kept], self.rows, self.metric)

    def left_out(self) -> Floats:
        """(n,) the metric without each item in turn: the jackknife."""
        return self.metric(self.totals - self.rows)[self.codes]


def ratio(totals: Floats) -> Floats:
    """Sum of values over sum of weights; the metric of `ItemScores`."""
    return np.asarray(totals[..., 0] / totals[..., 1])


def require_paired(scores: Sequence[SummedScores]) -> None:
    """Raise EvaluationError unless all are over exactly the same items."""
    for other in scores[1:]:
        require_same_items(scores[0].ids, other.ids)


def resampled(scores: Sequence[SummedScores], generator: np.random.Generator, *, resamples: int = RESAMPLES) -> Floats:
    """(resamples, len(scores)) the metrics over draws of the items with replacement, the same draws for all scores.

    Raises EvaluationError when the scores are over different items.
    """
    require_paired(scores)
    patterns, joint = _joint_patterns(scores)
    rows = [_multiplier(one.rows[patterns[:, column]]) for column, one in enumerate(scores)]
    chunks = [
        np.stack([one.metric(counts @ added) for one, added in zip(scores, rows, strict=True)], axis=1)
        for counts in _draws(joint, len(patterns), generator, resamples)
    ]
    return np.concatenate(chunks)


def _multiplier(rows: Floats) -> Any:
    if rows.shape[1] < _SPARSE:
        return rows
    from scipy.sparse import csr_array

    return csr_array(rows)


def _joint_patterns(scores: Sequence[SummedScores]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct combinations of codes (patterns, len(scores)), and which of them each item is (n,)."""
    codes = np.stack([one.codes for one in scores], axis=1)
    patterns, joint = np.unique(codes, axis=0, return_inverse=True)
    return patterns, joint.reshape(-1)


def _draws(joint: NDArray[np.int64], patterns: int, generator: np.random.Generator, resamples: int) -> Iterator[Floats]:
    """How often each pattern is drawn, (some resamples, patterns) at a time."""
    items = len(joint)
    rows = max(1, _CHUNK // max(patterns, 1))
    shares = np.bincount(joint, minlength=patterns) / items
    for done in range(0, resamples, rows):
        size = min(rows, resamples - done)
        if patterns * 8 < items:  # one binomial draw a pattern costs about as much as eight draws of an item
            yield generator.multinomial(items, shares, size=size).astype(np.float64)
        else:
            drawn = joint[generator.integers(items, size=(size, items), dtype=np.int32)]
            flat = drawn + patterns * np.arange(size)[:, None]
            counts = np.bincount(flat.reshape(-1), minlength=size * patterns)
            yield counts.reshape(size, patterns).astype(np.float64)
