"""How well numbers follow other numbers: Spearman's and Pearson's correlation, with intervals over items.

Neither is a ratio of sums over items, so the bootstrap here weighs items by how often a resample holds them: a rank is
the weight of what lies below, so that all resamples are computed at once without sorting anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rung.errors import EvaluationError
from rung.evaluation.intervals import FEW, bootstrap_interval
from rung.evaluation.summed import RESAMPLES
from rung.records import Interval, Record

Floats = NDArray[np.float64]
_AT_ONCE = 400_000  # weights that are held in memory together
_FEWEST = 4
"""Items below which a correlation says nothing."""


def spearman(first: Floats, second: Floats, weights: Floats | None = None) -> Floats:
    """Return Spearman's rank correlation of two series (n,), equal values sharing their mean rank.

    With `weights` (k, n), how often each item counts in each of k resamples, return (k,).
    """
    counts = np.ones((1, len(first))) if weights is None else weights
    found = _weighted_pearson(_ranks(first, counts), _ranks(second, counts), counts)
    return found if weights is not None else found[0]


def pearson(first: Floats, second: Floats, weights: Floats | None = None) -> Floats:
    """Return Pearson's correlation of two series; arguments as in `spearman`."""
    counts = np.ones((1, len(first))) if weights is None else weights
    found = _weighted_pearson(first[None], second[None], counts)
    return found if weights is not None else found[0]


def correlation_records(predicted: Floats, wanted: Floats, *, data_sha256: str, seed: int = 0) -> tuple[Record, Record]:
    """Spearman's and Pearson's correlation of `predicted` with `wanted`, both (n,), with 95 % intervals over items.

    Raises EvaluationError for fewer than four items, or where one series does not vary.
    """
    _check(predicted, wanted)
    spear, pear = (
        Record(
            name=name,
            value=float(measure(predicted, wanted)),
            unit="correlation",
            n=len(wanted),
            interval=_interval(partial(measure, predicted, wanted), len(wanted), seed),
            signature=f"{name} of cosines with scores",
            data_sha256=data_sha256,
        )
        for name, measure in (("spearman", spearman), ("pearson", pearson))
    )
    return spear, pear


def spearman_difference(after: Floats, before: Floats, wanted: Floats, *, data_sha256: str, seed: int = 0) -> Record:
    """How much higher Spearman's correlation with `wanted` is for `after` than for `before`, paired by item."""
    for series in (after, before):
        _check(series, wanted)

    def difference(weights: Floats) -> Floats:
        gained: Floats = spearman(after, wanted, weights) - spearman(before, wanted, weights)
        return gained

    return Record(
        name="difference in spearman",
        value=float(spearman(after, wanted) - spearman(before, wanted)),
        unit="correlation",
        n=len(wanted),
        interval=_interval(difference, len(wanted), seed),
        signature="paired by item",
        data_sha256=data_sha256,
    )


def _check(predicted: Floats, wanted: Floats) -> None:
    if len(predicted) != len(wanted):
        raise EvaluationError(f"{len(predicted)} predictions and {len(wanted)} scores do not match")
    if len(wanted) < _FEWEST:
        raise EvaluationError(f"a correlation of {len(wanted)} items says nothing", hint=f"give at least {_FEWEST}")
    for name, series in (("predictions", predicted), ("scores", wanted)):
        if np.ptp(series) == 0:
            raise EvaluationError(f"all {name} are {series[0]:g}: nothing can correlate with them")


def _interval(measure: Callable[[Floats], Floats], count: int, seed: int) -> Interval:
    """The bootstrap's, percentile or (below 200 items) BCa, of a measure of weights (k, items)."""
    generator = np.random.default_rng(seed)
    draws: list[Floats] = []
    step = max(1, _AT_ONCE // count)
    for start in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - start)
        weights = generator.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)
        draws.append(measure(weights))
    estimate = float(measure(np.ones((1, count)))[0])
    left_out = measure(1.0 - np.eye(count)) if count < FEW else np.full(count, estimate)
    return bootstrap_interval(np.concatenate(draws), estimate, left_out)


def _ranks(values: Floats, weights: Floats) -> Floats:
    """(k, n): mean ranks of `values` (n,) where item i counts `weights[:, i]` times."""
    distinct, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    ends = np.searchsorted(group[order], np.arange(len(distinct)), side="right") - 1
    up_to = np.cumsum(weights[:, order], axis=1)[:, ends]
    below = np.concatenate([np.zeros((len(weights), 1)), up_to[:, :-1]], axis=1)
    ranks: Floats = ((below + up_to + 1) / 2)[:, group]
    return ranks


def _weighted_pearson(first: Floats, second: Floats, weights: Floats) -> Floats:
    """(k,): the correlation of series (k or 1, n) under weights (k, n); NaN where one does not vary."""
    total = weights.sum(1, keepdims=True)
    x = np.broadcast_to(first, weights.shape) - (weights * first).sum(1, keepdims=True) / total
    y = np.broadcast_to(second, weights.shape) - (weights * second).sum(1, keepdims=True) / total
    weighted = weights * x
    variances = np.einsum("kn,kn->k", weighted, x) * np.einsum("kn,kn,kn->k", weights, y, y)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.einsum("kn,kn->k", weighted, y) / np.sqrt(variances)
    return found
