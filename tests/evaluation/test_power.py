"""Sample sizes against the published table, and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from rung.errors import EvaluationError
from rung.evaluation.power import detectable_difference, items_needed, power_statement

TABLE = {
    (0.01, 0.05): 3_923, (0.01, 0.10): 7_847, (0.01, 0.20): 15_696,
    (0.02, 0.05): 979, (0.02, 0.10): 1_960, (0.02, 0.20): 3_923,
    (0.05, 0.10): 312, (0.05, 0.20): 626,
}  # fmt: skip


@pytest.mark.parametrize(("difference", "discordance"), TABLE)
def test_the_table(difference: float, discordance: float) -> None:
    assert items_needed(difference, discordance) == TABLE[difference, discordance]


@pytest.mark.parametrize(("difference", "discordance"), [(0.05, 0.05), (0.1, 0.05), (0.0, 0.1), (-0.01, 0.1)])
def test_impossible_differences_are_refused(difference: float, discordance: float) -> None:
    with pytest.raises(EvaluationError, match="not possible"):
        items_needed(difference, discordance)


def test_the_power_is_what_it_says() -> None:
    difference, discordance, rounds = 0.03, 0.1, 20_000
    items = items_needed(difference, discordance)
    shares = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    better, worse, _ = np.random.default_rng(0).multinomial(items, shares, size=rounds).T
    found = (better - worse) / np.sqrt(better + worse) > norm.ppf(0.975)
    assert found.mean() == pytest.approx(0.80, abs=0.015)


@given(st.integers(200, 200_000), st.floats(0.02, 0.6))
def test_detectable_difference_turns_items_needed_round(items: int, discordance: float) -> None:
    smallest = detectable_difference(items, discordance)
    if smallest < discordance:
        assert items_needed(smallest * (1 - 1e-9), discordance) in (items, items + 1)


@given(st.integers(1, 100_000), st.floats(0.01, 1))
def test_more_items_never_detect_less(items: int, discordance: float) -> None:
    assert 0 < detectable_difference(items + 1, discordance) <= detectable_difference(items, discordance) <= 1


def test_the_statement() -> None:
    few, many = power_statement(500, 0.01), power_statement(8_000, 0.01)
    assert (few.needed_for_margin, few.n, few.margin) == (7_847, 500, 0.01)
    assert few.detectable_difference == pytest.approx(0.0395, abs=1e-4)
    assert "500 test items" in few.sentence
    assert "from 4.0 points" in few.sentence
    assert "7,847" in few.sentence
    assert "often 'not decided'" in few.sentence
    assert "are enough" in many.sentence
    for margin in (0.0, 1.0):
        with pytest.raises(EvaluationError, match="margin"):
            power_statement(500, margin)
