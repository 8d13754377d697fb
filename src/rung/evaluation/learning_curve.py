"""Quality against the number of labels: a power law with a band, and the labels a small rung needs.

Errors of classifiers fall like c + a n^-b (Hestness and others 2017, arXiv 1712.00409). The law is fitted by weighted
least squares, and refitted on draws of seeds and items for the band. For a fixed b the law is linear in c and a, so all
draws are fitted at once over a grid of b (variable projection).

The law does not hold near chance, where more labels help little at first (Hestness's small-data region): on SST-2 the
exponent between neighbouring sizes rises from 0.10 to 0.23, and a band from resampling alone misses the accuracy on all
data wherever the linear and the naive Bayes curve are cut off. So each draw is also asked how far it would have been
off at the largest measured size, fitted without it, and beyond that size it drifts by that much, either way, for each
such step in log n. No draw is let rise above its error at the largest size.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rung.errors import EvaluationError
from rung.evaluation.noninferiority import draw_fits
from rung.evaluation.summed import SummedScores, resampled

FEWEST_SIZES = 4
EXTRAPOLATION = 4.0
BAND = 0.90
LEVEL = 0.95
RESAMPLES = 2_000
_STEPS = 500  # of sizes tried; with four decades between first and last, neighbours differ by 2 %
_POWERS = np.geomspace(0.02, 3.0, 400)  # neighbours differ by 1.3 %, far below what any curve can resolve

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CurveScores:
    """Scores on the test items after fitting on nested samples of the training items.

    `sizes` ascend; `scores[i][j]` are those of the fit on `sizes[i]` items with seed j, larger is better.
    Raises EvaluationError for sizes that do not ascend or sizes with different numbers of seeds.
    """

    sizes: Sequence[int]
    scores: Sequence[Sequence[SummedScores]]

    def __post_init__(self) -> None:
        if list(self.sizes) != sorted(set(self.sizes)) or not self.sizes or self.sizes[0] < 1:
            raise EvaluationError(f"sizes of a learning curve must ascend from 1: {list(self.sizes)}")
        if len(self.scores) != len(self.sizes) or len({len(fits) for fits in self.scores}) != 1 or not self.scores[0]:
            raise EvaluationError("a learning curve needs the same number of fits at each size")

    def among(self, ids: Collection[str]) -> CurveScores:
        """The curve over those test items that are in `ids`."""
        if set(self.scores[0][0].ids) <= set(ids):
            return self
        return CurveScores(self.sizes, [[fit.among(ids) for fit in fits] for fits in self.scores])

    @property
    def values(self) -> Floats:
        """(sizes,) mean of the metric over seeds."""
        means: Floats = np.array([[fit.value for fit in fits] for fits in self.scores]).mean(axis=1)
        return means


@dataclass(frozen=True)
class PowerLaw:
    """error = floor + scale * n ** -power, fitted on sizes from `smallest_measured` to `largest_measured`.

    `draws` (resamples, 4) are floor, scale, power and the drift by unit of log n beyond the largest size.
    """

    floor: float
    scale: float
    power: float
    draws: Floats
    smallest_measured: int
    largest_measured: int

    @property
    def own(self) -> Floats:
        """(1, 4) the fit itself in the form of `draws`, without drift."""
        return np.array([[self.floor, self.scale, self.power, 0.0]])

    def error(self, sizes: Sequence[float], *, extrapolation: float = EXTRAPOLATION) -> Floats:
        """The fitted error at these sizes. Raises EvaluationError beyond `extrapolation` times the largest measured."""
        errors: Floats = _errors(self.own, self._checked(sizes, extrapolation), self.largest_measured)[0]
        return errors

    def band(self, sizes: Sequence[float], *, extrapolation: float = EXTRAPOLATION) -> tuple[Floats, Floats]:
        """The 90 % band of the error at these sizes, low and high. Raises like `error`."""
        errors = _errors(self.draws, self._checked(sizes, extrapolation), self.largest_measured)
        low, high = np.quantile(errors, [(1 - BAND) / 2, (1 + BAND) / 2], axis=0)
        return low, high

    def _checked(self, sizes: Sequence[float], extrapolation: float) -> Floats:
        asked = np.asarray(sizes, dtype=np.float64)
        if asked.size and asked.max() > extrapolation * self.largest_measured:
            raise EvaluationError(
                f"a curve measured up to {self.largest_measured:,} labels says nothing about {asked.max():,.0f}",
                hint=f"ask for at most {extrapolation:g} times the largest measured size, or measure larger ones",
            )
        return asked


@dataclass(frozen=True)
class LabelsNeeded:
    """n*: labels from which on a rung is not inferior to the reference as that is now, by the margin.

    `estimate` is None when not within four times the largest measured size; `low` and `high` are the 95 % interval,
    `high` None when it is open. The upper end is where non-inferiority is shown rather than estimated.
    """

    estimate: int | None
    low: int | None
    high: int | None
    largest_measured: int

    def sentence(self, name: str, reference: str) -> str:
        """One line for people."""
        limit = f"more than {int(EXTRAPOLATION * self.largest_measured):,}"
        if self.estimate is None:
            least = f" (at least {self.low:,})" if self.low else ""
            return f"By its learning curve {name} would need {limit} labels to match {reference}, if any do{least}."
        upper = limit if self.high is None else f"{self.high:,}"
        beyond = " (extrapolated)" if self.estimate > self.largest_measured else ""
        return (
            f"From about {self.estimate:,} labels on {name} is no longer inferior to {reference}{beyond}; "
            f"95 % interval {self.low:,} to {upper}."
        )


def fit_power_law(curve: CurveScores, *, seed: int = 0) -> PowerLaw:
    """Fit the law to a measured curve, with a bootstrap over seeds and items.

    Raises EvaluationError below 4 sizes: the law has three parameters.
    """
    return fit_errors(curve.sizes, 1 - curve.values, 1 - _resampled_curve(curve, (), seed)[0], seed=seed)


def fit_errors(sizes: Sequence[int], errors: Floats, resampled_errors: Floats, *, seed: int = 0) -> PowerLaw:
    """Fit the law to `errors` (sizes,) and, for the band, to each row of `resampled_errors` (resamples, sizes).

    Each size weighs as the inverse of its variance over the resamples, less what all sizes have in common: the draw of
    the test items moves the curve as a whole and says nothing of its shape. Raises EvaluationError below 4 sizes.
    """
    if len(sizes) < FEWEST_SIZES:
        raise EvaluationError(
            f"a learning curve of {len(sizes)} sizes cannot be fitted: the law has three parameters",
            hint=f"measure at least {FEWEST_SIZES} sizes",
        )
    variances = (resampled_errors - resampled_errors.mean(axis=1, keepdims=True)).var(axis=0)
    weights = 1 / np.maximum(variances, max(float(variances.mean()) / 100, 1e-12))
    logs = np.log(np.asarray(sizes, dtype=np.float64))
    floor, scale, power = _least_squares(logs, errors[None, :], weights)[0]
    draws = _least_squares(logs, resampled_errors, weights)
    shorter = _least_squares(logs[:-1], resampled_errors[:, :-1], weights[:-1])
    missed = shorter[:, 0] + shorter[:, 1] * math.exp(logs[-1]) ** -shorter[:, 2] - resampled_errors[:, -1]
    drift = np.random.default_rng(seed).normal(size=len(draws)) * missed / (logs[-1] - logs[-2])
    draws = np.concatenate([draws, drift[:, None]], axis=1)
    return PowerLaw(float(floor), float(scale), float(power), draws, int(sizes[0]), int(sizes[-1]))


def area_under_curve(curve: CurveScores) -> float:
    """Mean of the metric over the logarithm of the number of labels (AULC), by trapezoids."""
    if len(curve.sizes) < 2:
        raise EvaluationError("the area under a learning curve needs at least two sizes")
    logs = np.log(np.asarray(curve.sizes, dtype=np.float64))
    return float(np.trapezoid(curve.values, logs) / (logs[-1] - logs[0]))


def labels_to_target(law: PowerLaw, error: float) -> LabelsNeeded:
    """Labels at which the law reaches `error`, not before the smallest measured size."""
    estimate = _sizes_reaching(law, law.own, np.array([error]), law.smallest_measured)
    draws = _sizes_reaching(law, law.draws, np.full(len(law.draws), error), law.smallest_measured)
    return _summary(float(estimate[0]), draws, law.largest_measured)


def labels_needed(
    curve: CurveScores, reference: Sequence[SummedScores], *, margin: float, seed: int = 0
) -> LabelsNeeded:
    """Find n* of a rung against the reference's fits on all data, over the same test items.

    Within the measured sizes the mean difference is interpolated in log n, and the last size at which it is below
    -margin counts; beyond them the power law goes on, to four times the largest size. The interval comes from drawing
    seeds and items, the same items for curve and reference. Raises EvaluationError when the items differ.
    """
    values, levels = _resampled_curve(curve, reference, seed)
    level = np.array([np.mean([fit.value for fit in reference])])
    estimate = _crossing(curve.sizes, curve.values[None, :], level - margin)
    draws = _crossing(curve.sizes, values, levels - margin)
    largest = int(curve.sizes[-1])
    if len(curve.sizes) >= FEWEST_SIZES:
        law = fit_errors(curve.sizes, 1 - curve.values, 1 - values, seed=seed)
        if np.isinf(estimate[0]):
            estimate = _sizes_reaching(law, law.own, 1 - level + margin, largest + 1)
        beyond = np.isinf(draws)
        draws[beyond] = _sizes_reaching(law, law.draws[beyond], 1 - levels[beyond] + margin, largest + 1)
    return _summary(float(estimate[0]), draws, largest)


def _resampled_curve(curve: CurveScores, reference: Sequence[SummedScores], seed: int) -> tuple[Floats, Floats]:
    """The curve (resamples, sizes) and the reference (resamples,) over draws of items and, for each, of seeds."""
    generator = np.random.default_rng(seed)
    flat = [fit for fits in curve.scores for fit in fits]
    seeds = len(curve.scores[0])
    values = resampled([*flat, *reference], generator, resamples=RESAMPLES)
    by_size = values[:, : len(flat)].reshape(RESAMPLES, len(curve.sizes), seeds)
    # One draw of seeds serves all sizes: the samples are nested, so a lucky seed is lucky along its whole curve.
    state = generator.bit_generator.state
    columns = []
    for size in range(len(curve.sizes)):
        generator.bit_generator.state = state
        columns.append(draw_fits(by_size[:, size], generator))
    level = draw_fits(values[:, len(flat) :], generator) if reference else np.zeros(RESAMPLES)
    return np.stack(columns, axis=1), level


def _errors(laws: Floats, sizes: Floats, largest: int) -> Floats:
    """(laws, sizes) errors, between 0 and 1, of (laws, 4) parameters."""
    floor, scale, power, drift = laws.T[:, :, None]
    beyond = np.maximum(np.log(sizes / largest), 0.0)
    present = floor + scale * largest**-power
    errors = floor + scale * sizes**-power + drift * beyond
    limited: Floats = np.clip(np.where(beyond > 0, np.minimum(errors, present), errors), 0.0, 1.0)
    return limited


def _sizes_reaching(law: PowerLaw, laws: Floats, errors: Floats, smallest: int) -> Floats:
    """(laws,) the first size from `smallest` on at which each law is at its error or below; infinite if none."""
    sizes = np.geomspace(smallest, EXTRAPOLATION * law.largest_measured, _STEPS)
    reached = _errors(laws, sizes, law.largest_measured) <= errors[:, None]
    return np.where(reached.any(axis=1), sizes[reached.argmax(axis=1)], np.inf)


def _least_squares(logs: Floats, errors: Floats, weights: Floats) -> Floats:
    """(curves, 3) floor >= 0, scale >= 0 and power that fit each row of `errors` (curves, sizes) best."""
    best, found = np.full(len(errors), np.inf), np.zeros((len(errors), 3))
    centre = float(np.average(logs, weights=weights))  # powers of n / n0 keep the two columns of like size
    total, plain = weights.sum(), errors @ weights
    for power in _POWERS:
        column = np.exp(-power * (logs - centre))
        first, second, mixed = weights @ column, weights @ column**2, errors @ (weights * column)
        floor, scale = _two_non_negative(total, first, second, plain, mixed)
        # The weighted squares of the residuals, without those of the errors, which are the same for each power.
        residual = floor * (floor * total + 2 * (scale * first - plain)) + scale * (scale * second - 2 * mixed)
        better = residual < best
        best[better] = residual[better]
        fitted = np.stack([floor, scale * math.exp(power * centre), np.full(len(errors), power)], axis=1)
        found[better] = fitted[better]
    return found


def _two_non_negative(total: float, first: float, second: float, plain: Floats, mixed: Floats) -> tuple[Floats, Floats]:
    """Least squares on a constant and a column, neither coefficient below 0, from the normal equations' sums."""
    determinant = total * second - first**2
    floor, scale = (second * plain - first * mixed) / determinant, (total * mixed - first * plain) / determinant
    rising, below = scale < 0, floor < 0
    scale = np.where(below, np.maximum(mixed / second, 0), scale)
    floor = np.where(below, 0, floor)
    return np.where(rising, np.maximum(plain / total, 0), floor), np.where(rising, 0, scale)


def _crossing(sizes: Sequence[int], values: Floats, targets: Floats) -> Floats:
    """(curves,) sizes from which on each row of `values` (curves, sizes) stays at its target; infinite if none."""
    logs = np.log(np.asarray(sizes, dtype=np.float64))
    below = values < targets[:, None]
    last = len(sizes) - 1 - below[:, ::-1].argmax(axis=1)  # the last size below the target, where there is one
    result = np.full(len(values), float(sizes[0]))
    inside = below.any(axis=1) & (last < len(sizes) - 1)
    rows, at = np.nonzero(inside)[0], last[inside]
    rise = values[rows, at + 1] - values[rows, at]
    share = (targets[rows] - values[rows, at]) / rise
    result[inside] = np.exp(logs[at] + share * (logs[at + 1] - logs[at]))
    result[below[:, -1]] = np.inf
    return result


def _summary(estimate: float, draws: Floats, largest: int) -> LabelsNeeded:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")

    def rounded(size: float) -> int | None:
        return None if math.isinf(size) else math.ceil(size)

    # The middle of the draws need not be the estimate; an interval without it would only puzzle.
    least, most = min(float(low), estimate), max(float(high), estimate)
    return LabelsNeeded(rounded(estimate), rounded(least), rounded(most), largest)
