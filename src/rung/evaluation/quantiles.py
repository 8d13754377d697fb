"""The interval of a quantile: of latencies, above all, which no bell curve describes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from rung.evaluation.intervals import LEVEL
from rung.records import Interval


def quantile_interval(values: NDArray[np.float64], share: float) -> Interval | None:
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
