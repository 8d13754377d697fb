"""The keyed permutation: one to one for every size, and random enough."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rung.data.order import SampleOrder, keyed_integers


@given(
    num_windows=st.integers(1, 3000) | st.integers(2**14 - 2, 2**14 + 300),
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 10**6),
)
def test_every_window_comes_exactly_once_an_epoch(num_windows: int, seed: int, epoch: int) -> None:
    samples = np.arange(num_windows) + epoch * num_windows
    epochs, windows = SampleOrder(num_windows, seed).locate(samples)
    assert (epochs == epoch).all()
    assert np.array_equal(np.sort(windows), np.arange(num_windows))


@pytest.mark.parametrize("num_windows", [2**14, 2**16, 2**16 + 1, 10**6])
def test_large_sizes_are_permuted_too(num_windows: int) -> None:
    _, windows = SampleOrder(num_windows, 1).locate(np.arange(num_windows))
    assert np.array_equal(np.sort(windows), np.arange(num_windows))


@given(
    num_windows=st.integers(1, 2**50),
    seed=st.integers(0, 2**40),
    samples=st.lists(st.integers(0, 2**52), max_size=20),
)
def test_a_sample_does_not_depend_on_the_batch_it_is_asked_in(num_windows: int, seed: int, samples: list[int]) -> None:
    order = SampleOrder(num_windows, seed)
    epochs, windows = order.locate(np.array(samples, dtype=np.int64))
    assert (epochs == np.array(samples, dtype=np.int64) // num_windows).all()
    assert ((windows >= 0) & (windows < num_windows)).all()
    for place, sample in enumerate(samples):
        assert [int(x[0]) for x in order.locate(np.array([sample]))] == [epochs[place], windows[place]]


@pytest.mark.parametrize("num_windows", [2, 3, 4, 5])
def test_all_orders_of_a_few_windows_are_equally_likely(num_windows: int) -> None:
    order, places = SampleOrder(num_windows, 5), np.arange(num_windows)
    orders = np.array([order.locate(places + epoch * num_windows)[1] for epoch in range(6000)])
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == math.factorial(num_windows)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("size", [10_000, 50_000])
def test_neighbours_go_to_unrelated_places_and_epochs_differ(size: int) -> None:
    order = SampleOrder(size, 3)
    first, second = (order.locate(np.arange(size) + epoch * size)[1] for epoch in (0, 1))
    bound = 4 / np.sqrt(size)  # a correlation of independent numbers has this deviation times 1/4
    for a, b in [(first[:-1], first[1:]), (first, second), (first, np.arange(size)), (first[::2], first[1::2])]:
        assert abs(np.corrcoef(a, b)[0, 1]) < bound
    assert stats.kstest((first[1:] - first[:-1]) % size / size, "uniform").pvalue > 1e-3
    assert 0 <= (first == second).sum() < 10  # one is expected


def test_the_order_is_pinned() -> None:
    """A run resumed under another version must see the same windows: these numbers never change."""
    assert SampleOrder(1000, 42).locate(np.array([0, 1, 2, 999, 1000, 123_456]))[1].tolist() == [
        302,
        366,
        89,
        149,
        735,
        274,
    ]
    _, windows = SampleOrder(10**6, 42).locate(np.array([0, 1, 2, 10**6, 123_456_789]))
    assert windows.tolist() == [141558, 541712, 867953, 325108, 529161]
    assert keyed_integers("order", 42, 0, 1) == [8600551525661994245]
