"""Is one system as good as another, within a margin set before: over items and over training seeds.

Two sources of chance are kept apart. Items: other test items would have given another difference. Seeds: another fit of
the same rung would have too. A two-level bootstrap draws both: the items that all fits share, and for each system, on
its own, as many of its fits as it has. Drawing S of S fits understates their variance by (S - 1) / S, so the deviations
from the mean over fits are widened by sqrt(S / (S - 1)) (Rao and Wu 1988, rescaling bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from rung.errors import EvaluationError
from rung.evaluation.intervals import LEVEL, ROUNDING, bootstrap_interval
from rung.evaluation.power import ALPHA, POWER, items_needed
from rung.evaluation.summed import RESAMPLES, SummedScores, resampled
from rung.records import Interval

_HOPELESS = 100
"""Where an estimated distance asks for more than so many times the items, it is none: the two lie on the margin."""

_QUANTILES = float(ndtri(1 - ALPHA / 2) + ndtri(POWER))

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """Mean over fits of the first system minus mean over fits of the second, on the same items.

    `probability_better` is P(first > second) over draws of items and fits, ties counted half. `discordance` is the mean
    square of the items' differences: for one fit each and 0/1 scores, the share of items on which the two disagree.
    `fit_variance` is the part of the value's variance that stems from the choice of seeds, whatever the items.
    """

    value: float
    interval: Interval | None
    probability_better: float
    n: int
    discordance: float
    fit_variance: float

    def non_inferior(self, margin: float) -> bool:
        """Whether the first is worse by less than `margin`: the two-sided 95 % interval lies above -margin."""
        return self.interval is not None and self.interval.low > -margin + ROUNDING

    def inferior(self, margin: float) -> bool:
        """Whether the first is worse by more than `margin`."""
        return self.interval is not None and self.interval.high < -margin - ROUNDING

    def more_items(self, margin: float) -> int | None:
        """How many more test items would decide between the two (80 % power), or None when no number would.

        Planned for a distance of one margin from the border, which is that of two equally good systems: the estimated
        distance itself is far too uncertain in an undecided comparison to plan by. Only where the items are already
        more than such a plan asks for is the estimated distance taken. What varies from fit to fit is not averaged away
        by items and takes its share of the precision first.
        """
        needed = self._needed(margin, margin)
        if needed is not None and needed <= self.n:
            needed = self._needed(abs(self.value + margin), margin)
            if needed is not None and not self.n < needed <= _HOPELESS * self.n:
                return None
        return None if needed is None else needed - self.n

    def _needed(self, distance: float, margin: float) -> int | None:
        if distance <= ROUNDING:
            return None
        needed = items_needed(distance, max(self.discordance, 2 * margin, 2 * distance))
        left_for_items = 1 - self.fit_variance * (_QUANTILES / distance) ** 2
        return math.ceil(needed / left_for_items) if left_for_items > 0 else None


def difference(first: Sequence[SummedScores], second: Sequence[SummedScores], *, seed: int = 0) -> Difference:
    """Compare two systems by the fits of each, all on the same items.

    The interval is the paired bootstrap's (BCa below 200 items) for one fit each, the two-level bootstrap's otherwise.
    Raises EvaluationError without a fit, or when the fits are not over the same items.
    """
    if not first or not second:
        raise EvaluationError("a comparison needs at least one fit of each system")
    generator = np.random.default_rng(seed)
    values = resampled([*first, *second], generator)
    own, other = values[:, : len(first)], values[:, len(first) :]
    draws = draw_fits(own, generator) - draw_fits(other, generator)
    value = _mean(first) - _mean(second)
    left_out = np.mean([fit.left_out() for fit in first], axis=0) - np.mean([fit.left_out() for fit in second], axis=0)
    count = len(first[0].ids)
    return Difference(
        value=value,
        interval=None if count < 2 else _interval(draws, value, left_out, len(first), len(second)),
        probability_better=float(((draws > ROUNDING).mean() + (draws >= -ROUNDING).mean()) / 2),
        n=count,
        discordance=min(1.0, float(np.mean(_pseudo_values(left_out, value) ** 2))),
        fit_variance=_variance_of_fits(first) + _variance_of_fits(second),
    )


def draw_fits(values: Floats, generator: np.random.Generator) -> Floats:
    """Mean over random draws of the fits, (resamples, fits) -> (resamples,), rescaled for their small number."""
    resamples, fits = values.shape
    centre: Floats = values.mean(axis=1)
    if fits == 1:
        return centre
    shares = generator.multinomial(fits, np.full(fits, 1 / fits), size=resamples) / fits
    widened: Floats = centre + np.sqrt(fits / (fits - 1)) * ((shares * values).sum(axis=1) - centre)
    return widened


def _mean(fits: Sequence[SummedScores]) -> float:
    return float(np.mean([fit.value for fit in fits]))


def _pseudo_values(left_out: Floats, value: float) -> Floats:
    """(n,) each item's own share in the value, from the jackknife (Efron and Tibshirani 1993, chapter 11).

    For a mean over items these are the items' scores; for macro-F1 and the like, what its variance is made of.
    """
    count = len(left_out)
    return np.asarray(count * value - (count - 1) * left_out)


def _variance_of_fits(fits: Sequence[SummedScores]) -> float:
    """Variance of the mean over fits that no number of items would remove (by moments, as in analysis of variance).

    Fits scatter also because each errs on other items; that part, estimated within items, is subtracted.
    """
    if len(fits) == 1:
        return 0.0
    values: Floats = np.array([fit.value for fit in fits])
    scatter = float(values.var(ddof=1))
    items: Floats = np.stack([_pseudo_values(fit.left_out(), fit.value) for fit in fits])
    by_items = float(items.var(axis=0, ddof=1).mean()) / items.shape[1]
    by_items = float(items.var(axis=0, ddof=1).mean()) / len(fits[0].ids)
    return max(0.0, scatter - by_items) / len(fits)


def _interval(draws: Floats, value: float, left_out: Floats, *fits: int) -> Interval:
    if max(fits) == 1:
        return bootstrap_interval(draws, value, left_out)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    method = f"percentile bootstrap over items and {' x '.join(map(str, fits))} seeds, {RESAMPLES:,} resamples"
    return Interval(low=float(low), high=float(high), level=LEVEL, method=method)
