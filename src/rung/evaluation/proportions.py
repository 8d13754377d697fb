"""Intervals of one proportion: Wilson's for general use, Clopper and Pearson's where coverage must be guaranteed."""

from __future__ import annotations

import math

from scipy.special import betaincinv, ndtri

from rung.errors import EvaluationError
from rung.records import Interval

LEVEL = 0.95


def wilson(successes: int, trials: int, *, level: float = LEVEL) -> Interval:
    """Wilson's score interval (1927). Raises EvaluationError unless 0 <= successes <= trials and trials > 0."""
    _require_proportion(successes, trials)
    quantile = -float(ndtri((1 - level) / 2))
    share, squared = successes / trials, quantile**2
    centre = (share + squared / (2 * trials)) / (1 + squared / trials)
    spread = quantile * math.sqrt(share * (1 - share) / trials + squared / (4 * trials**2)) / (1 + squared / trials)
    # At 0 and at all of them the formula is exactly 0 and 1; rounding is not allowed to leave it.
    low = 0.0 if successes == 0 else centre - spread
    high = 1.0 if successes == trials else centre + spread
    return Interval(low=low, high=high, level=level, method="Wilson")


def clopper_pearson(successes: int, trials: int, *, level: float = LEVEL) -> Interval:
    """The exact interval of Clopper and Pearson (1934), which covers at least `level`. Raises like `wilson`."""
    _require_proportion(successes, trials)
    tail, failures = (1 - level) / 2, trials - successes
    low = 0.0 if successes == 0 else float(betaincinv(successes, failures + 1, tail))
    high = 1.0 if failures == 0 else float(betaincinv(successes + 1, failures, 1 - tail))
    return Interval(low=low, high=high, level=level, method="Clopper-Pearson")


def _require_proportion(successes: int, trials: int) -> None:
    if trials < 1 or not 0 <= successes <= trials:
        raise EvaluationError(f"{successes} of {trials} is not a proportion")
