"""Intervals against scipy's bootstrap, and against the truth they promise to cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rung.evaluation import intervals
from rung.evaluation.intervals import compare, interval
from rung.records import ItemScores


def scores(count: int, seed: int, shift: float = 0.0) -> ItemScores:
    generator = np.random.default_rng(seed)
    weights = generator.integers(20, 2000, count).astype(np.float64)
    values = weights * (2 + shift + generator.gamma(2, 0.3, count))
    return ItemScores([str(number) for number in range(count)], values, weights)


@pytest.mark.parametrize(("count", "method"), [(12, "BCa"), (150, "BCa"), (400, "percentile")])
def test_equals_scipy(count: int, method: str) -> None:
    items = scores(count, seed=count)
    expected = stats.bootstrap(
        (items.values, items.weights),
        lambda values, weights, axis=-1: values.sum(axis=axis) / weights.sum(axis=axis),
        paired=True,
        n_resamples=intervals.RESAMPLES,
        method=method,
        rng=np.random.default_rng(1),
    ).confidence_interval
    found = interval(items)
    assert found is not None
    assert found.method.startswith(method)
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.06 * width)  # two draws of 10,000 resamples differ by chance
    assert found.high == pytest.approx(expected.high, abs=0.06 * width)
    assert interval(items) == found  # seeded


def test_the_normal_interval_agrees_with_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    items = scores(2_000, seed=3)
    resampled = interval(items)
    monkeypatch.setattr(intervals, "_MANY", 1_000)
    normal = interval(items)
    assert resampled is not None
    assert normal is not None
    assert normal.method.startswith("normal")
    width = resampled.high - resampled.low
    assert normal.low == pytest.approx(resampled.low, abs=0.08 * width)
    assert normal.high == pytest.approx(resampled.high, abs=0.08 * width)


def test_too_few_or_equal_items() -> None:
    assert interval(scores(1, seed=0)) is None
    equal = interval(ItemScores(["a", "b"], np.array([1.0, 1.0]), np.array([2.0, 2.0])))
    assert equal is not None
    assert (equal.low, equal.high) == (0.5, 0.5)


def test_pairing_sees_what_separate_intervals_hide() -> None:
    first = scores(100, seed=5)
    second = ItemScores(first.ids[::-1], first.values[::-1] + 0.02 * first.weights[::-1], first.weights[::-1])
    difference = compare(first, second, name="bits_per_byte", unit="bits per byte")
    assert difference.value == pytest.approx(-0.02)
    assert difference.interval is not None
    assert difference.interval.high < 0
    alone = interval(first)
    assert alone is not None
    assert alone.low < second.mean < alone.high
