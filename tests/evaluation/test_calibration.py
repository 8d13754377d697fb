"""Calibration on simulations whose truth is known, and its invariants."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import spearmanr

from rung.evaluation import calibration
from rung.evaluation.classification import Classified


def calibrated(count: int, classes: int, *, temperature: float = 1.0, seed: int = 0) -> Classified:
    """Labels drawn from softmax(logits); what is stated is softmax(logits / temperature)."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, classes)) * 2
    truth = softmax(logits, axis=1)
    labels = (truth.cumsum(axis=1) < generator.random((count, 1))).sum(axis=1)
    return Classified([f"{i:06}" for i in range(count)], labels, softmax(logits / temperature, axis=1))


@pytest.mark.parametrize("classes", [2, 5])
def test_a_calibrated_classifier_has_no_calibration_error(classes: int) -> None:
    record = calibration.expected_calibration_error(calibrated(100_000, classes))
    assert record.value is not None
    assert record.value < 0.01


def test_the_error_of_an_overconfident_classifier_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    labels = np.array([0] * 7 + [1] * 3 + [0] * 5 + [1] * 5)
    case = Classified([str(i) for i in range(20)], labels, probabilities)
    lower, upper = calibration.reliability(case)
    assert (lower.count, lower.confidence, lower.accuracy) == (10, pytest.approx(0.6), 0.5)
    assert (upper.count, upper.confidence, upper.accuracy) == (10, pytest.approx(0.9), 0.7)
    assert calibration.expected_calibration_error(case).value == pytest.approx(0.15)


def test_bins_have_equal_mass_and_do_not_depend_on_order() -> None:
    case = calibrated(1_500, 3)
    curve = calibration.reliability(case)
    assert [one.count for one in curve] == [100] * 15
    assert all(before.high <= after.low for before, after in itertools.pairwise(curve))
    order = np.random.default_rng(1).permutation(1_500)
    shuffled = Classified([case.ids[i] for i in order], case.labels[order], case.probabilities[order])
    found = calibration.expected_calibration_error(shuffled).value
    assert found == pytest.approx(calibration.expected_calibration_error(case).value, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_undoes_scaling(temperature: float) -> None:
    stated = calibrated(20_000, 4, temperature=1 / temperature, seed=3)
    found = calibration.fit_temperature(stated)
    assert found == pytest.approx(temperature, rel=0.05)
    after = calibration.with_temperature(stated, found)
    assert after.predicted.tolist() == stated.predicted.tolist()
    assert after.negative_log_likelihood.mean <= stated.negative_log_likelihood.mean
    error = calibration.expected_calibration_error(after).value
    assert error is not None
    assert error < 0.02


def test_risk_falls_with_coverage_and_ends_at_the_error() -> None:
    case = calibrated(20_000, 3, seed=5)
    coverage, risk = calibration.risk_coverage(case)
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx(1 - case.correct.mean)
    assert spearmanr(coverage, risk).statistic > 0.99
    record = calibration.area_under_risk_coverage(case)
    assert record.value is not None
    assert record.value == pytest.approx(np.mean(risk), abs=1e-9)  # continuous confidences: a step for each item
    assert record.value < 1 - case.correct.mean


def test_failed_items_come_last_and_state_no_confidence() -> None:
    case = calibrated(200, 3, seed=6)
    failed = np.zeros(200, dtype=bool)
    failed[:50] = True
    partly = Classified(case.ids, case.labels, case.probabilities, failed)
    answered = Classified(case.ids[50:], case.labels[50:], case.probabilities[50:])
    own, rest = calibration.expected_calibration_error(partly), calibration.expected_calibration_error(answered)
    assert own == rest
    coverage, risk = calibration.risk_coverage(partly)
    assert (coverage[-2], coverage[-1]) == (0.75, 1.0)
    assert risk[-1] == pytest.approx(1 - partly.correct.mean)
    silent = Classified(case.ids, case.labels, case.probabilities, np.ones(200, dtype=bool))
    assert calibration.expected_calibration_error(silent).not_measured == "every item failed"
    assert calibration.reliability(silent) == []
    assert calibration.fit_temperature(silent) == 1.0
