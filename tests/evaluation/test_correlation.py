"""Correlations against scipy: the values, each resample, and what the intervals promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from rung.errors import EvaluationError
from rung.evaluation.correlation import correlation_records, pearson, spearman, spearman_difference

values = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=4, max_size=30)


@given(pairs=values, seed=st.integers(0, 99))
def test_weights_mean_as_many_copies(pairs: list[tuple[int, int]], seed: int) -> None:
    first, second = np.array(pairs, dtype=np.float64).T
    weights = np.random.default_rng(seed).integers(0, 4, size=(3, len(first))).astype(np.float64)
    weights[:, 0] += 1
    for found, expected in ((spearman, spearmanr), (pearson, pearsonr)):
        for row, value in zip(weights, found(first, second, weights), strict=True):
            one, other = (np.repeat(series, row.astype(int)) for series in (first, second))
            if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
                continue
            assert value == pytest.approx(expected(one, other).statistic, abs=1e-9)


def test_records_hold_the_values_and_intervals_around_them() -> None:
    generator = np.random.default_rng(0)
    wanted = generator.normal(size=300)
    predicted = wanted + generator.normal(size=300)
    first, second = correlation_records(predicted, wanted, data_sha256="0")
    assert first.value == pytest.approx(spearmanr(predicted, wanted).statistic)
    assert second.value == pytest.approx(pearsonr(predicted, wanted).statistic)
    for record in (first, second):
        assert record.interval is not None
        assert record.value is not None
        assert record.interval.low < record.value < record.interval.high
        assert record.n == 300


def test_a_gain_that_every_item_shares_is_clear_of_zero() -> None:
    generator = np.random.default_rng(1)
    wanted, noise = generator.normal(size=(2, 120))
    record = spearman_difference(wanted + noise / 4, wanted + noise, wanted, data_sha256="0")
    assert record.interval is not None
    assert record.interval.low > 0
    assert "BCa" in record.interval.method


@pytest.mark.parametrize(("count", "said"), [(3, "says nothing"), (9, "nothing can correlate")])
def test_what_has_no_correlation_is_refused(count: int, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        correlation_records(np.ones(count), np.arange(count, dtype=np.float64), data_sha256="0")
