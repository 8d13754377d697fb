"""Span corruption: nothing is lost, sentinels come in order, and T5's shares are kept."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.span_corruption import SpanCorruption
from rung.errors import DataError

SENTINELS = tuple(range(999, 799, -1))
texts = st.lists(st.integers(0, 700), min_size=2, max_size=300)


@given(tokens=texts, density=st.floats(0.05, 0.9), mean=st.floats(1, 10), sample=st.integers(0, 2**40))
def test_source_and_target_restore_the_text(tokens: list[int], density: float, mean: float, sample: int) -> None:
    corruption = SpanCorruption(SENTINELS + tuple(range(1000, 1300)), density, mean)
    hidden, spans = corruption.spans(len(tokens))
    used = corruption.sentinels[: spans + 1]
    source, target = corruption.corrupt(tokens, 0, sample)
    gaps: dict[int, list[int]] = {}
    for token in target:
        if token in used:
            gaps[token] = []
        else:
            gaps[list(gaps)[-1]].append(token)
    assert tuple(gaps) == used  # in order, each once
    assert target[-1] == used[-1]
    assert [token for token in source if token in used] == list(used[:-1])
    assert all(gaps[sentinel] for sentinel in used[:-1])  # no empty gap
    restored = [token for item in source for token in gaps.get(item, [item])]
    assert restored == tokens
    assert sum(map(len, gaps.values())) == hidden
    assert source[0] == tokens[0]


@given(length=st.integers(20, 2000))
def test_the_shares_are_those_asked_for(length: int) -> None:
    hidden, spans = SpanCorruption(SENTINELS).spans(length)
    assert abs(hidden - 0.15 * length) <= 0.5
    assert abs(hidden / 3 - spans) <= 0.5


def test_t5s_own_figures() -> None:
    """512 tokens after corruption come from 568 before it, with a target of 114, end tokens counted (section 3.1.4)."""
    source, target = SpanCorruption(SENTINELS).corrupt(list(range(568)), 0, 0)
    assert (len(source) + 1, len(target) + 1) == (512, 114 + 1)  # T5 leaves out the last sentinel


@given(tokens=texts, seed=st.integers(0, 2**63), epoch=st.integers(0, 1000), sample=st.integers(0, 2**40))
def test_it_depends_on_seed_epoch_and_sample_alone(tokens: list[int], seed: int, epoch: int, sample: int) -> None:
    first = SpanCorruption(SENTINELS, seed=seed).corrupt(tokens, epoch, sample)
    assert SpanCorruption(SENTINELS, seed=seed).corrupt(tokens, epoch, sample) == first


def test_other_seeds_epochs_and_samples_hide_other_spans() -> None:
    tokens = list(range(200))
    variants = {
        tuple(SpanCorruption(SENTINELS, seed=seed).corrupt(tokens, epoch, sample)[0])
        for seed in range(4)
        for epoch in range(4)
        for sample in range(4)
    }
    assert len(variants) == 64


def test_every_place_but_the_first_is_hidden_equally_often() -> None:
    """With one token hidden in one span, only the last token can be hidden; so look at longer texts' middles."""
    counts: Counter[int] = Counter()
    for sample in range(2000):
        _, target = SpanCorruption(SENTINELS).corrupt(list(range(60)), 0, sample)
        counts.update(token for token in target if token < 60)
    middle = [counts[place] for place in range(15, 45)]
    assert 0 not in counts
    assert max(middle) / min(middle) < 1.6


def test_every_way_to_part_is_equally_likely() -> None:
    """Six tokens, two hidden in two spans: four kept tokens part in three ways."""
    corruption = SpanCorruption(SENTINELS, noise_density=1 / 3, mean_span=1)
    ways = Counter(tuple(corruption.corrupt([0, 1, 2, 3, 4, 5], 0, sample)[0]) for sample in range(3000))
    assert len(ways) == 3
    assert min(ways.values()) > 900


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SpanCorruption(SENTINELS).corrupt([], 0, 0), "a text of 0 tokens leaves nothing to hide"),
        (lambda: SpanCorruption(SENTINELS).corrupt([5], 0, 0), "a text of 1 tokens"),
        (lambda: SpanCorruption((7, 8)).corrupt([5] * 100, 0, 0), "100 tokens need 6 sentinels, there are 2"),
        (lambda: SpanCorruption((7, 7)), "the same sentinel is given twice"),
        (lambda: SpanCorruption(SENTINELS, noise_density=0.0), "noise_density must lie between 0 and 1"),
        (lambda: SpanCorruption(SENTINELS, noise_density=float("nan")), "noise_density must lie between 0 and 1"),
        (lambda: SpanCorruption(SENTINELS, mean_span=0.5), "mean_span must be at least 1"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(make: object, said: str) -> None:
    assert callable(make)
    with pytest.raises(DataError, match=said):
        make()
