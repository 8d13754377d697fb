"""Paired tests against published values, scipy, statsmodels and a worked example."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, false_discovery_control, kstest
from sklearn.metrics import f1_score

from rung.errors import EvaluationError
from rung.evaluation.classification import Classified
from rung.evaluation.intervals import compare, difference_interval
from rung.evaluation.paired_tests import approximate_randomisation, benjamini_hochberg, holm, mcnemar, mcnemar_counts
from rung.evaluation.summed import SummedScores
from rung.records import ItemScores

Labels = NDArray[np.int64]


def right_or_wrong(*right: bool) -> ItemScores:
    return ItemScores([str(i) for i in range(len(right))], np.array(right, dtype=np.float64), np.ones(len(right)))


def classified(labels: Labels, predicted: Labels, classes: int) -> Classified:
    return Classified([f"{i:05}" for i in range(len(labels))], labels, np.eye(classes)[predicted])


@pytest.mark.parametrize(("first", "second", "p"), [(15, 5, 0.04139), (25, 10, 0.01667)])
def test_published_mcnemar(first: int, second: int, p: float) -> None:
    assert mcnemar_counts(first, second).p == pytest.approx(p, abs=5e-6)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_equals_scipy(first: int, second: int) -> None:
    found = mcnemar_counts(first, second)
    if first + second:
        assert found.p == pytest.approx(binomtest(first, first + second).pvalue, rel=1e-10)
    assert found == mcnemar_counts(first, second)
    assert 0 < found.mid_p <= found.p <= 1
    assert mcnemar_counts(second, first).mid_p == found.mid_p


def test_mid_p_is_uniform_under_the_null() -> None:
    counts = np.random.default_rng(0).binomial(100_000, 0.5, size=2_000)
    p = [mcnemar_counts(int(count), int(100_000 - count)).mid_p for count in counts]
    assert kstest(p, "uniform").pvalue > 0.01


def test_mcnemar_wants_right_or_wrong() -> None:
    assert mcnemar(right_or_wrong(True, True, False), right_or_wrong(False, True, True)).p == 1
    graded = ItemScores(["0", "1", "2"], np.array([0.5, 1, 0]), np.ones(3))
    with pytest.raises(EvaluationError, match="0 or 1"):
        mcnemar(graded, right_or_wrong(True, True, False))


def test_the_worked_example_of_sst2() -> None:
    """LR 81.00 against NB 82.48 % on 1,821 sentences, 83 and 110 discordant."""
    first, second = np.zeros(1_821), np.zeros(1_821)
    first[:1_392] = second[:1_392] = 1  # both right
    first[1_392:1_475] = 1
    second[1_475:1_585] = 1
    ids = [f"{i:05}" for i in range(1_821)]
    own, other = ItemScores(ids, first, np.ones(1_821)), ItemScores(ids, second, np.ones(1_821))
    assert (100 * own.mean, 100 * other.mean) == pytest.approx((81.00, 82.48), abs=0.005)
    found = mcnemar(own, other)
    assert (found.only_first, found.only_second) == (83, 110)
    assert found.p == pytest.approx(0.061, abs=5e-4)
    difference = compare(own, other, name="accuracy", unit="share")
    assert difference.interval is not None
    assert 100 * difference.interval.low == pytest.approx(-2.97, abs=0.06)
    assert 100 * difference.interval.high == pytest.approx(0.00, abs=0.06)
    summed = SummedScores.of_items(own), SummedScores.of_items(other)
    assert approximate_randomisation(*summed) == pytest.approx(0.064, abs=0.008)
    again = difference_interval(*summed)
    assert again is not None
    assert again.low == pytest.approx(difference.interval.low, abs=6e-4)


def test_randomisation_of_macro_f1_equals_swapping_item_by_item() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 120)
    first = np.where(generator.random(120) < 0.75, labels, generator.integers(0, 3, 120))
    second = np.where(generator.random(120) < 0.6, labels, generator.integers(0, 3, 120))
    observed = abs(f1_score(labels, first, average="macro") - f1_score(labels, second, average="macro"))
    extreme, rounds = 1, 400
    for _ in range(rounds):
        swap = generator.random(120) < 0.5
        one, other = np.where(swap, second, first), np.where(swap, first, second)
        apart = abs(f1_score(labels, one, average="macro") - f1_score(labels, other, average="macro"))
        extreme += apart >= observed - 1e-12
    scores = [classified(labels, predicted, 3).summed("macro_f1") for predicted in (first, second)]
    found = approximate_randomisation(scores[0], scores[1])
    assert found == pytest.approx(extreme / (rounds + 1), abs=0.07)
    assert approximate_randomisation(scores[0], scores[0]) == 1.0


def test_corrections_equal_others() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    generator = np.random.default_rng(2)
    for count in (1, 2, 7, 40):
        p = generator.random(count) ** 3
        assert holm(p.tolist()) == pytest.approx(multitest.multipletests(p, method="holm")[1], abs=1e-14)
        assert benjamini_hochberg(p.tolist()) == pytest.approx(
            multitest.multipletests(p, method="fdr_bh")[1], abs=1e-14
        )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_equals_scipy(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p), abs=1e-14)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
