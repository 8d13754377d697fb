"""Quality against the number of labels: a power law with a band, and the labels a small rung needs.

Errors of classifiers fall like c + a n^-b (Hestness and others 2017, arXiv 1712.00409). The law is fitted by least
squares weighted by the inverse variance at each size; the band comes from refitting on draws of seeds and items. For a
fixed b the law is linear in c and a, so all draws are fitted at once over a grid of b (variable projection).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
_POWERS = np.geomspace(0.02, 3.0, 600)  # neighbours differ by 0.8 %, far below what any curve can resolve

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

    @property
    def values(self) -> Floats:
        """(sizes,) mean of the metric over seeds."""
        means: Floats = np.array([[fit.value for fit in fits] for fits in self.scores]).mean(axis=1)
        return means


@dataclass(frozen=True)
class PowerLaw:
    """error = floor + scale * n ** -power; `draws` (resamples, 3) are the same three after resampling."""

    floor: float
    scale: float
    power: float
    draws: Floats
    largest_measured: int

    def error(self, sizes: Sequence[float], *, extrapolation: float = EXTRAPOLATION) -> Floats:
        """The fitted error at these sizes. Raises EvaluationError beyond `extrapolation` times the largest measured."""
        own = np.array([[self.floor, self.scale, self.power]])
        errors: Floats = _law(own, self._checked(sizes, extrapolation))[0]
        return errors

    def band(self, sizes: Sequence[float], *, extrapolation: float = EXTRAPOLATION) -> tuple[Floats, Floats]:
        """The 90 % band of the error at these sizes, low and high. Raises like `error`."""
        errors = _law(self.draws, self._checked(sizes, extrapolation))
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
    errors = 1 - _resampled_curve(curve, (), seed)[0]
    return fit_errors(curve.sizes, 1 - curve.values, errors)


def fit_errors(sizes: Sequence[int], errors: Floats, resampled_errors: Floats) -> PowerLaw:
    """Fit the law to `errors` (sizes,) and, for the band, to each row of `resampled_errors` (resamples, sizes).

    Each size weighs as the inverse of its variance over the resamples. Raises EvaluationError below 4 sizes.
    """
    if len(sizes) < FEWEST_SIZES:
        raise EvaluationError(
            f"a learning curve of {len(sizes)} sizes cannot be fitted: the law has three parameters",
            hint=f"measure at least {FEWEST_SIZES} sizes",
        )
    variances = resampled_errors.var(axis=0)
    weights = 1 / np.maximum(variances, max(float(variances.mean()) / 100, 1e-12))
    logs = np.log(np.asarray(sizes, dtype=np.float64))
    floor, scale, power = _least_squares(logs, errors[None, :], weights)[0]
    draws = _least_squares(logs, resampled_errors, weights)
    return PowerLaw(float(floor), float(scale), float(power), draws, int(sizes[-1]))


def area_under_curve(curve: CurveScores) -> float:
    """Mean of the metric over the logarithm of the number of labels (AULC), by trapezoids."""
    if len(curve.sizes) < 2:
        raise EvaluationError("the area under a learning curve needs at least two sizes")
    logs = np.log(np.asarray(curve.sizes, dtype=np.float64))
    return float(np.trapezoid(curve.values, logs) / (logs[-1] - logs[0]))


def labels_to_target(law: PowerLaw, error: float) -> LabelsNeeded:
    """Labels at which the law reaches `error`."""
    estimate = _inverse(np.array([[law.floor, law.scale, law.power]]), np.array([error]))
    draws = _inverse(law.draws, np.full(len(law.draws), error))
    limit = EXTRAPOLATION * law.largest_measured
    return _summary(float(estimate[0]), draws, limit, law.largest_measured)


def labels_needed(
    curve: CurveScores, reference: Sequence[SummedScores], *, margin: float, seed: int = 0
) -> LabelsNeeded:
    """Find n* of a rung against the reference's fits on all data, over the same test items.

    Within the measured sizes the mean difference is interpolated in log n, and the last size at which it is below
    -margin counts; beyond them the power law goes on, to four times the largest size. The interval comes from drawing
    seeds and items, the same items for curve and reference. Raises EvaluationError when the items differ.
    """
    values, level = _resampled_curve(curve, reference, seed)
    target = level - margin
    present = curve.values, float(np.mean([fit.value for fit in reference])) - margin
    laws = fit_errors(curve.sizes, 1 - curve.values, 1 - values) if len(curve.sizes) >= FEWEST_SIZES else None
    own_law = None if laws is None else np.array([[laws.floor, laws.scale, laws.power]])
    estimate = _crossing(curve.sizes, present[0][None, :], np.array([present[1]]), own_law)
    draws = _crossing(curve.sizes, values, target, None if laws is None else laws.draws)
    largest = int(curve.sizes[-1])
    return _summary(float(estimate[0]), draws, EXTRAPOLATION * largest, largest)


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


def _law(parameters: Floats, sizes: Floats) -> Floats:
    """(laws, sizes) errors of (laws, 3) parameters."""
    floor, scale, power = parameters.T[:, :, None]
    return np.asarray(floor + scale * sizes**-power)


def _inverse(parameters: Floats, errors: Floats) -> Floats:
    """(laws,) sizes at which each law reaches its error; infinite where it never does."""
    floor, scale, power = parameters.T
    above = errors - floor
    reachable = above > 0
    sizes = np.full(len(errors), np.inf)
    with np.errstate(over="ignore", divide="ignore"):
        sizes[reachable] = (scale[reachable] / above[reachable]) ** (1 / power[reachable])
    return sizes


def _least_squares(logs: Floats, errors: Floats, weights: Floats) -> Floats:
    """(curves, 3) floor >= 0, scale >= 0 and power that fit each row of `errors` (curves, sizes) best."""
    best = np.full(len(errors), np.inf)
    found = np.zeros((len(errors), 3))
    centre = float(np.average(logs, weights=weights))  # powers of n / n0 keep the two columns of like size
    for power in _POWERS:
        column = np.exp(-power * (logs - centre))
        floor, scale = _two_non_negative(column, errors, weights)
        residual = ((errors - floor[:, None] - scale[:, None] * column) ** 2 * weights).sum(axis=1)
        better = residual < best
        best[better] = residual[better]
        fitted = np.stack([floor, scale * math.exp(power * centre), np.full(len(errors), power)], axis=1)
        found[better] = fitted[better]
    return found


def _two_non_negative(column: Floats, errors: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted least squares of rows of `errors` on a constant and `column`, neither coefficient below 0."""
    total, first, second = weights.sum(), (weights * column).sum(), (weights * column**2).sum()
    plain, mixed = errors @ weights, errors @ (weights * column)
    determinant = total * second - first**2
    floor, scale = (second * plain - first * mixed) / determinant, (total * mixed - first * plain) / determinant
    rising, below = scale < 0, floor < 0
    scale = np.where(below, np.maximum(mixed / second, 0), scale)
    floor = np.where(below, 0, floor)
    return np.where(rising, np.maximum(plain / total, 0), floor), np.where(rising, 0, scale)


def _crossing(sizes: Sequence[int], values: Floats, targets: Floats, laws: Floats | None) -> Floats:
    """(curves,) sizes from which on each row of `values` (curves, sizes) stays at its target or above."""
    logs = np.log(np.asarray(sizes, dtype=np.float64))
    below = values < targets[:, None]
    last = len(sizes) - 1 - below[:, ::-1].argmax(axis=1)  # the last size below the target, where there is one
    result = np.full(len(values), float(sizes[0]))
    inside = below.any(axis=1) & (last < len(sizes) - 1)
    rows, at = np.nonzero(inside)[0], last[inside]
    rise = values[rows, at + 1] - values[rows, at]
    share = (targets[rows] - values[rows, at]) / rise
    result[inside] = np.exp(logs[at] + share * (logs[at + 1] - logs[at]))
    beyond = below.any(axis=1) & ~inside
    result[beyond] = np.inf
    if laws is not None:
        # A law may cross a little before the largest size although the measurement there did not: not before it then.
        result[beyond] = np.maximum(_inverse(laws[beyond], 1 - targets[beyond]), sizes[-1] + 1)
    return result


def _summary(estimate: float, draws: Floats, limit: float, largest: int) -> LabelsNeeded:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")

    def rounded(size: float) -> int | None:
        return math.ceil(size) if size <= limit else None

    return LabelsNeeded(rounded(estimate), rounded(float(low)), rounded(float(high)), largest)
