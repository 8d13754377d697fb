"""Intervals of a proportion against scipy and published values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rung.errors import EvaluationError
from rung.evaluation.proportions import clopper_pearson, wilson


def test_published_values() -> None:
    assert (wilson(45, 50).low, wilson(45, 50).high) == pytest.approx((0.7864, 0.9565), abs=5e-5)
    assert (clopper_pearson(45, 50).low, clopper_pearson(45, 50).high) == pytest.approx((0.7819, 0.9667), abs=5e-5)


@given(st.integers(1, 5000), st.floats(0, 1), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_equal_scipy(trials: int, share: float, level: float) -> None:
    successes = round(share * trials)
    test = binomtest(successes, trials)
    for found, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        expected = test.proportion_ci(level, method)
        interval = found(successes, trials, level=level)
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_what_is_no_proportion_is_refused(successes: int, trials: int) -> None:
    for method in (wilson, clopper_pearson):
        with pytest.raises(EvaluationError, match="not a proportion"):
            method(successes, trials)
