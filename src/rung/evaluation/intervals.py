"""Confidence intervals of ratios of sums over items, and the paired comparison of two systems on the same items."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from rung.records import Interval, ItemScores, Record, paired

RESAMPLES = 10_000
LEVEL = 0.95
_FEW = 200
"""Below this many items the percentile interval is corrected for bias and skewness (BCa)."""
_MANY = 20_000
"""Above this many items the interval is the normal one: resampling would take minutes to give the same."""
_CHUNK = 4_000_000  # item draws held in memory at a time

Floats = NDArray[np.float64]


def interval(scores: ItemScores, *, seed: int = 0) -> Interval | None:
    """Return the 95 % interval of `scores.mean` over draws of the items, or None for fewer than two items.

    Bootstrap of the ratio of sums with 10,000 resamples: percentile, or BCa (Efron 1987, section 14.3 of Efron and
    Tibshirani 1993) below 200 items. Above 20,000 items: normal, with the delta method's variance of a ratio.
    """
    values, weights, count = scores.values, scores.weights, len(scores.ids)
    if count < 2:
        return None
    if count > _MANY:
        residuals = values - scores.mean * weights
        spread = -ndtri((1 - LEVEL) / 2) * math.sqrt(count * residuals.var(ddof=1)) / weights.sum()
        return Interval(low=scores.mean - spread, high=scores.mean + spread, level=LEVEL, method="normal, delta method")
    resampled = _resample(values, weights, seed)
    shares = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    method = "percentile"
    if count < _FEW:
        shares, method = _bca_shares(resampled, values, weights, shares), "BCa"
    low, high = np.quantile(resampled, shares)
    return Interval(
        low=float(low), high=float(high), level=LEVEL, method=f"{method} bootstrap over items, {RESAMPLES:,} resamples"
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


def _resample(values: Floats, weights: Floats, seed: int) -> Floats:
    """Return the ratio of sums of `RESAMPLES` draws of all items with replacement."""
    generator = np.random.default_rng(seed)
    count, ratios = len(values), []
    for done in range(0, RESAMPLES, rows := max(1, _CHUNK // count)):
        drawn = generator.integers(count, size=(min(rows, RESAMPLES - done), count), dtype=np.int32)
        ratios.append(values[drawn].sum(axis=1) / weights[drawn].sum(axis=1))
    return np.concatenate(ratios)


def _bca_shares(resampled: Floats, values: Floats, weights: Floats, shares: Floats) -> Floats:
    """Move the quantiles to read by the bias and the acceleration that the jackknife finds."""
    estimate = values.sum() / weights.sum()
    below = ((resampled < estimate).mean() + (resampled <= estimate).mean()) / 2
    if not 0 < below < 1:  # all resamples on one side, as with two equal items: nothing to correct by
        return shares
    left_out = (values.sum() - values) / (weights.sum() - weights)
    deviations = left_out.mean() - left_out
    squares = (deviations**2).sum()
    acceleration = (deviations**3).sum() / (6 * squares**1.5) if squares > 0 else 0.0
    bias, normal = ndtri(below), ndtri(shares)
    moved: Floats = ndtr(bias + (bias + normal) / (1 - acceleration * (bias + normal)))
    return moved


def quantile_interval(values: Floats, share: float) -> Interval | None:
    """Return the distribution-free 95 % interval of a quantile, from order statistics (Hahn and Meeker 1991, 5.2).

    None where so few values cannot hold one, as for the 95th percentile of 20.
    """
    ordered, count = np.sort(values), len(values)
    low, high = (int(binom.ppf(tail, count, share)) for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    if low < 1 or high > count - 1:
        return None
    return Interval(
        low=float(ordered[low - 1]), high=float(ordered[high]), level=LEVEL, method="order statistics, binomial"
    )
