"""Drift: divergences against scipy, the null against samples of one text, telling words against the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from rung.errors import EvaluationError
from rung.evaluation.drift import (
    UnitCounts,
    count_words,
    drift,
    jensen_shannon,
    telling_words,
    unseen_share,
    words,
)

COUNTS = st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any)


def units(shares: list[float], *, seed: int, count: int = 60, size: int = 200) -> UnitCounts:
    """`count` documents of `size` words each, drawn from `shares`; each document favours one word of its own."""
    draw = np.random.default_rng(seed)
    types = [draw.choice(len(shares), size=size, p=shares) for _ in range(count)]
    for own in types:
        own[: size // 10] = draw.integers(len(shares))
    return UnitCounts.of(np.repeat(np.arange(count), size), np.concatenate(types), num_types=len(shares))


@given(first=COUNTS, second=COUNTS)
def test_the_divergence_is_scipys_distance_squared(first: list[int], second: list[int]) -> None:
    ours = jensen_shannon(np.array(first, float), np.array(second, float))
    assert float(ours) == pytest.approx(float(jensenshannon(first, second, base=2)) ** 2, abs=1e-9)


def test_nothing_in_common_is_one_bit_and_unseen() -> None:
    first, second = np.array([3.0, 1.0, 0.0]), np.array([0.0, 0.0, 7.0])
    assert jensen_shannon(first, second) == pytest.approx(1.0)
    assert unseen_share(first, second) == 1.0
    assert unseen_share(first, np.array([1.0, 0.0, 3.0])) == 0.75


def test_a_text_of_the_same_kind_is_no_drift_and_another_is() -> None:
    shares, others = [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]
    old = units(shares, seed=0)
    same, null = drift(old, units(shares, seed=1), jensen_shannon, name="divergence", unit="bits")
    assert null.interval is not None
    assert same.value is not None
    assert null.interval.low <= same.value <= null.interval.high
    other, _ = drift(old, units(others, seed=1), jensen_shannon, name="divergence", unit="bits")
    assert other.interval is not None
    assert other.interval.low > null.interval.high


def test_a_short_new_text_is_compared_with_parts_as_short() -> None:
    shares = [0.4, 0.3, 0.2, 0.1]
    old, short = units(shares, seed=0), units(shares, seed=1, count=5)
    found, null = drift(old, short, jensen_shannon, name="divergence", unit="bits")
    _, of_halves = drift(old, units(shares, seed=2), jensen_shannon, name="divergence", unit="bits")
    assert null.interval is not None
    assert found.value is not None
    assert null.value is not None
    assert of_halves.value is not None
    assert null.value > of_halves.value, "small parts differ more by chance"
    assert null.interval.low <= found.value <= null.interval.high


def test_too_few_documents_are_refused() -> None:
    few = units([0.5, 0.5], seed=0, count=3)
    with pytest.raises(EvaluationError, match="3 document"):
        drift(units([0.5, 0.5], seed=0), few, jensen_shannon, name="divergence", unit="bits")


def test_telling_words_are_those_of_the_formula() -> None:
    vocabulary, old, new = ["the", "ship", "queen", "rare"], np.array([85.0, 14, 1, 0]), np.array([85.0, 1, 12, 2])
    tell_new, tell_old = telling_words(vocabulary, old, new, count=1)
    assert [word.word for word in (*tell_new, *tell_old)] == ["queen", "ship"]
    prior = 13.0  # queen, in both; 200 words in all
    ours, theirs = 12 + prior, 1 + prior
    odds = math.log(ours / (300 - ours)) - math.log(theirs / (300 - theirs))
    assert tell_new[0].z == pytest.approx(odds / math.sqrt(1 / ours + 1 / theirs))
    assert (tell_new[0].in_new, tell_new[0].in_old) == (12, 1)


def test_words_are_letters_with_apostrophes() -> None:
    assert words("Don't shout, O'Neil! It’s 1864 -- élan_x") == ["don't", "shout", "o'neil", "it’s", "élan", "x"]
    index: dict[str, int] = {}
    found = count_words([(0, "a b a"), (2, "b")], index)
    counted = UnitCounts.of(*found, num_types=len(index)).matrix.toarray()
    np.testing.assert_array_equal(counted, [[2, 1], [0, 0], [0, 1]])
