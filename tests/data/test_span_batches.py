"""Windows of raw text with gaps: no token is lost, gaps change with the epoch, and a batch depends on its number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.span_batches import GappedWindows, SpanBatches
from rung.data.span_corruption import SpanCorruption
from rung.errors import DataError

PAD, END = 998, 999
SENTINELS = tuple(range(900, 950))
LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=20).filter(lambda lengths: max(lengths) > 1)


def windows(lengths: list[int], *, most: int = 16, seed: int = 0) -> GappedWindows:
    """Tokens are numbered through, so that each is known again."""
    ids = np.arange(sum(lengths), dtype=np.uint32)
    corruption = SpanCorruption(tuple(number + 100_000 for number in SENTINELS), seed=seed)
    return GappedWindows.cut(ids, np.array(lengths, dtype=np.int64), corruption, most=most, end_token_id=END + 100_000)


def batches(made: GappedWindows, *, tokens: int = 64, seed: int = 0) -> SpanBatches:
    return SpanBatches(made, tokens=tokens, pad_token_id=PAD + 100_000, start_token_id=PAD + 100_000, seed=seed)


@given(LENGTHS, st.integers(4, 40))
def test_windows_hold_every_token_once_in_order(lengths: list[int], most: int) -> None:
    made = windows(lengths, most=most)
    assert made.ids.tolist() == list(range(sum(lengths)))
    assert made.lengths.sum() == len(made.ids)
    assert min(most // 2, len(made.ids)) <= made.lengths.min() <= made.lengths.max() <= most


def test_long_documents_have_windows_of_their_own() -> None:
    assert windows([100, 40, 20, 30], most=40).lengths.tolist() == [33, 33, 34, 40, 25, 25]
    assert windows([3, 3, 3], most=40).lengths.tolist() == [9]


@given(LENGTHS, st.integers(4, 40), st.integers(0, 3))
def test_lengths_of_sources_and_targets_are_known_beforehand(lengths: list[int], most: int, epoch: int) -> None:
    made = windows(lengths, most=most)
    pairs = made.pairs(np.arange(len(made)), epoch)
    assert pairs.longer.tolist() == made.longer.tolist()
    assert made.longer.max() <= max(most + 1, 4)


@given(LENGTHS, st.integers(8, 100))
def test_an_epoch_reads_every_token_once(lengths: list[int], tokens: int) -> None:
    made = windows(lengths)
    some = batches(made, tokens=tokens)
    for epoch in range(2):
        read: list[int] = []
        for number in range(epoch * len(some), (epoch + 1) * len(some)):
            batch = some.batch(np.array([number]))
            rows, width = batch["source_ids"].shape
            assert rows == 1 or rows * max(width, batch["labels"].shape[1]) <= tokens
            read += [*batch["source_ids"].flatten().tolist(), *batch["labels"].flatten().tolist()]
        assert sorted(token for token in read if 0 <= token < 100_000) == made.ids.tolist()


def test_a_batch_depends_on_its_number_alone_and_epochs_differ() -> None:
    lengths = [60] * 8
    first, second = batches(windows(lengths, most=60)), batches(windows(lengths, most=60))
    numbers = list(range(2 * len(first)))
    forward = {number: first.batch(np.array([number]))["source_ids"].tolist() for number in numbers}
    backward = {number: second.batch(np.array([number]))["source_ids"].tolist() for number in numbers[::-1]}
    assert forward == backward
    made, other = windows(lengths, most=60), windows(lengths, most=60, seed=1)
    every = np.arange(len(made))
    drawn = [made.pairs(every, 0), made.pairs(every, 1), other.pairs(every, 0)]
    assert len({one.sources.ids.tobytes() for one in drawn}) == 3


@pytest.mark.parametrize("lengths", [[], [0], [1], [0, 1]])
def test_text_without_two_tokens_is_refused(lengths: list[int]) -> None:
    with pytest.raises(DataError, match="nothing to hide"):
        windows(lengths)
