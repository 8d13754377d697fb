"""Differences over items and seeds: exact cases, coverage by simulation, and the items a decision needs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rung.errors import EvaluationError
from rung.evaluation.classification import Classified
from rung.evaluation.intervals import compare
from rung.evaluation.noninferiority import Difference, difference
from rung.evaluation.power import items_needed
from rung.evaluation.summed import SummedScores
from rung.records import ItemScores


def items(right: NDArray[np.bool_]) -> ItemScores:
    return ItemScores([f"{i:05}" for i in range(len(right))], right.astype(np.float64), np.ones(len(right)))


def summed(right: NDArray[np.bool_]) -> SummedScores:
    return SummedScores.of_items(items(right))


def found(value: float, *, n: int, discordance: float = 0.1, fit_variance: float = 0.0) -> Difference:
    return Difference(value, None, 0.5, n, discordance, fit_variance)


@pytest.mark.parametrize("count", [150, 800])
def test_one_fit_each_is_the_paired_bootstrap(count: int) -> None:
    generator = np.random.default_rng(count)
    first = generator.random(count) < 0.8
    second = np.where(generator.random(count) < 0.15, generator.random(count) < 0.8, first)
    own = difference([summed(first)], [summed(second)])
    other = compare(items(first), items(second), name="accuracy", unit="share").interval
    assert own.interval is not None
    assert other is not None
    assert own.value == pytest.approx(first.mean() - second.mean())
    assert own.discordance == pytest.approx((first != second).mean())
    assert (own.interval.low, own.interval.high) == pytest.approx((other.low, other.high), abs=0.002)
    assert own.interval.method == other.method
    mirrored = difference([summed(second)], [summed(first)])
    assert own.probability_better == pytest.approx(1 - mirrored.probability_better, abs=0.02)


def test_the_two_level_interval_covers_items_and_seeds() -> None:
    """Both sources of chance matter here; with five fits each, the interval covers about as often as it promises."""
    generator, covered, narrow, rounds = np.random.default_rng(3), 0, 0, 60
    for _ in range(rounds):
        easy = generator.normal(size=300)
        systems = []
        for skill in (0.9, 0.8):
            own = easy + generator.normal(size=300) * 0.5
            systems.append([summed(own + skill + generator.normal() * 0.15 > 0) for _ in range(5)])
        centre = [1 - _normal_below(-skill / np.sqrt(1.25 + 0.15**2)) for skill in (0.9, 0.8)]
        own = difference(systems[0], systems[1])
        plain = difference(systems[0][:1], systems[1][:1])
        assert own.interval is not None
        assert plain.interval is not None
        truth = centre[0] - centre[1]
        covered += own.interval.low <= truth <= own.interval.high
        narrow += plain.interval.low <= truth <= plain.interval.high
    assert covered / rounds >= 0.87
    assert narrow / rounds < covered / rounds  # one fit says nothing of the spread over fits


def _normal_below(value: float) -> float:
    from scipy.stats import norm

    return float(norm.cdf(value))


def test_macro_f1_has_differences_too() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 600)
    fits = []
    for skill in (0.9, 0.6):
        predicted = np.where(generator.random(600) < skill, labels, generator.integers(0, 3, 600))
        fits.append(Classified([f"{i:04}" for i in range(600)], labels, np.eye(3)[predicted]).summed("macro_f1"))
    own = difference(fits[:1], fits[1:])
    assert own.value == pytest.approx(fits[0].value - fits[1].value)
    assert own.interval is not None
    assert 0 < own.interval.low < own.value < own.interval.high
    assert own.probability_better == 1


def test_the_items_that_would_decide() -> None:
    assert found(0.0, n=300).more_items(0.01) == 7_847 - 300
    assert found(-0.03, n=300).more_items(0.01) == 7_847 - 300  # planned by the margin, not by the noisy estimate
    near = found(-0.008, n=9_000).more_items(0.01)
    assert near == items_needed(0.002, 0.1) - 9_000
    assert found(-0.01, n=9_000).more_items(0.01) is None  # on the margin
    assert found(0.0, n=300, fit_variance=1e-4).more_items(0.01) is None  # seeds alone blur more than the margin
    blurred = found(0.0, n=300, fit_variance=4e-6).more_items(0.01)
    assert blurred is not None
    assert blurred > 7_847 - 300
    assert found(0.0, n=10, discordance=0.001).more_items(0.01) is not None  # few disagree so far: still a number


def test_spread_over_seeds_is_told_from_noise_of_items() -> None:
    generator = np.random.default_rng(5)
    steady = [summed(generator.random(2_000) < 0.8) for _ in range(12)]
    shaky = [summed(generator.random(2_000) < level) for level in generator.normal(0.8, 0.03, 12)]
    one = [summed(generator.random(2_000) < 0.8)]
    assert difference(steady, one).fit_variance < 1.5e-5
    assert difference(shaky, one).fit_variance == pytest.approx(0.03**2 / 12, rel=0.7)


def test_other_items_are_refused() -> None:
    with pytest.raises(EvaluationError, match="different items"):
        difference([summed(np.ones(5, dtype=bool))], [summed(np.ones(6, dtype=bool))])
    with pytest.raises(EvaluationError, match="at least one fit"):
        difference([], [summed(np.ones(6, dtype=bool))])
