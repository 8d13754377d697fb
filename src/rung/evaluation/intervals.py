"""Confidence intervals of metrics that are functions of sums over items, and of paired differences of such metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from rung.evaluation.summed import RESAMPLES, SummedScores, require_paired, resampled
from rung.records import Interval, ItemScores, Record, paired

LEVEL = 0.95
FEW = 200
"""Below this many items the percentile interval is corrected for bias and skewness (BCa)."""
ROUNDING = 1e-12
"""Values of metrics closer than this are equal."""
_MANY = 20_000
"""Above this many items that all differ the interval is the normal one: resampling would take long to give the same."""

Floats = NDArray[np.float64]


def interval(scores: ItemScores | SummedScores, *, seed: int = 0) -> Interval | None:
    """Return the 95 % interval of a metric over draws of the items, or None for fewer than two items.

    Bootstrap with 10,000 resamples: percentile, or BCa (Efron 1987, section 14.3 of Efron and Tibshirani 1993) below
    200 items. Above 20,000 items with scores that all differ: normal, with the jackknife's variance.
    """
    return intervals([scores], seed=seed)[0]


def intervals(scores: Sequence[ItemScores | SummedScores], *, seed: int = 0) -> list[Interval | None]:
    """Return the interval of each metric, as `interval`, all from the same draws of the items that they share."""
    summed = [SummedScores.of_items(one) if isinstance(one, ItemScores) else one for one in scores]
    if len(summed[0].ids) < 2:
        return [None] * len(summed)
    if any(len(one.rows) > _MANY for one in summed):
        return [_normal(one.value, one.left_out()) for one in summed]
    draws = resampled(summed, np.random.default_rng(seed))
    return [bootstrap_interval(draws[:, column], one.value, one.left_out()) for column, one in enumerate(summed)]


def difference_interval(first: SummedScores, second: SummedScores, *, seed: int = 0) -> Interval | None:
    """Return the 95 % interval of `first.value - second.value` over draws of the items that both share.

    As `interval`. Raises EvaluationError when the two are not over the same items.
    """
    require_paired([first, second])
    if len(first.ids) < 2:
        return None
    draws = resampled([first, second], np.random.default_rng(seed))
    return bootstrap_interval(
        draws[:, 0] - draws[:, 1], first.value - second.value, first.left_out() - second.left_out()
    )


def compare(first: ItemScores, second: ItemScores, *, name: str, unit: str, seed: int = 0) -> Record:
    """Return the difference `first.mean - second.mean`, its interval from resampling the items that both share.

    Raises EvaluationError when the two are not over the same items with the same weights.
    """
    first, second = paired(first, second)
    differences = ItemScores(first.ids, first.values - second.values, first.weights)
    return Record(
        name=f"difference in {name}",
        value=differences.mean,
        unit=unit,
        n=len(differences.ids),
        interval=interval(differences, seed=seed),
        signature="paired by item",
    )


def bootstrap_interval(draws: Floats, estimate: float, left_out: Floats) -> Interval:
    """Read the interval from resampled values; `left_out` (n,) is the jackknife, which BCa needs below 200 items."""
    draws = draws[np.isfinite(draws)]  # a resample on which the metric does not exist says nothing about it
    shares = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    method = "percentile"
    if len(left_out) < FEW:
        shares, method = _bca_shares(draws, estimate, left_out, shares), "BCa"
    low, high = np.quantile(draws, shares)
    return Interval(
        low=float(low), high=float(high), level=LEVEL, method=f"{method} bootstrap over items, {RESAMPLES:,} resamples"
    )


def _normal(estimate: float, left_out: Floats) -> Interval:
    count = len(left_out)
    deviation = math.sqrt((count - 1) * float(left_out.var()))
    spread = -float(ndtri((1 - LEVEL) / 2)) * deviation
    return Interval(low=estimate - spread, high=estimate + spread, level=LEVEL, method="normal, jackknife variance")


def _bca_shares(draws: Floats, estimate: float, left_out: Floats, shares: Floats) -> Floats:
    """Move the quantiles to read by the bias and the acceleration that the jackknife finds."""
    # Scores of items are often whole numbers, so that many draws equal the estimate but for rounding.
    below = ((draws < estimate - ROUNDING).mean() + (draws <= estimate + ROUNDING).mean()) / 2
    if not 0 < below < 1:  # all resamples on one side, as with two equal items: nothing to correct by
        return shares
    deviations = left_out[np.isfinite(left_out)]
    deviations = deviations.mean() - deviations
    squares = (deviations**2).sum()
    acceleration = (deviations**3).sum() / (6 * squares**1.5) if squares > 0 else 0.0
    bias, normal = ndtri(below), ndtri(shares)
    moved: Floats = ndtr(bias + (bias + normal) / (1 - acceleration * (bias + normal)))
    return moved
