"""The split is a function of the text alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.split import chance, validation_threshold
from rung.errors import DataError


def digests(texts: list[str]) -> np.ndarray:
    return np.frombuffer(b"".join(hashlib.sha256(text.encode()).digest() for text in texts), np.uint8).reshape(-1, 32)


@given(st.lists(st.text(), min_size=1, max_size=20, unique=True), st.integers(0, 3))
def test_chance_depends_on_text_and_seed_only(texts: list[str], seed: int) -> None:
    together = chance(digests(texts), seed)
    alone = [chance(digests([text]), seed)[0] for text in texts]
    assert together.tolist() == alone
    assert ((together >= 0) & (together < 1)).all()


def test_chance_is_uniform_and_differs_with_the_seed() -> None:
    numbers = digests([str(i) for i in range(20_000)])
    first, second = chance(numbers, 0), chance(numbers, 1)
    counts = np.histogram(first, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi square, 19 degrees: p < 1e-4 above 50
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


def test_a_large_corpus_keeps_the_fraction_asked_for() -> None:
    u = chance(digests([str(i) for i in range(5000)]), 0)
    assert validation_threshold(u, np.full(5000, 4096), 0.05) == 0.05


@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=40), st.floats(0.001, 0.999), st.integers(0, 99))
def test_both_sides_hold_something(sizes: list[int], fraction: float, seed: int) -> None:
    u = chance(digests([f"{seed} {i}" for i in range(len(sizes))]), seed)
    valid = u < validation_threshold(u, np.array(sizes), fraction)
    assert 0 < valid.sum() < len(sizes)


@pytest.mark.parametrize("count", [0, 1])
def test_too_little_to_split_says_how_much_is_needed(count: int) -> None:
    with pytest.raises(DataError, match="cannot be split") as caught:
        validation_threshold(np.zeros(count), np.full(count, 7), 0.05)
    assert "KiB" in str(caught.value)
