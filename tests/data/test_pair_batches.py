"""Batches of pairs: every pair once an epoch, the same in any process, within the budget, and rightly padded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.pair_batches import EncodedPairs, HeldOutPairs, PairBatches
from rung.data.text_encoder import EncodedTexts

PAD = 99


def texts(lengths: list[int], first: int) -> EncodedTexts:
    """Text i consists of `first + i`, so that a row of a batch tells which text it is."""
    ids = np.repeat(np.arange(len(lengths)) + first, lengths)
    return EncodedTexts(ids.astype(np.int32), np.array(lengths, dtype=np.int64))


def pairs(lengths: list[tuple[int, int]]) -> EncodedPairs:
    return EncodedPairs(texts([one for one, _ in lengths], 1000), texts([other for _, other in lengths], 5000))


def batches(lengths: list[tuple[int, int]], *, tokens: int = 64, seed: int = 0) -> PairBatches:
    return PairBatches(pairs(lengths), tokens=tokens, pad_token_id=PAD, start_token_id=7, seed=seed)


LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=80)


@given(LENGTHS, st.integers(1, 200), st.integers(0, 5))
def test_every_pair_once_an_epoch_within_the_budget(lengths: list[tuple[int, int]], tokens: int, seed: int) -> None:
    made = batches(lengths, tokens=tokens, seed=seed)
    for epoch in range(3):
        rows = [made.rows(epoch * len(made) + number) for number in range(len(made))]
        assert sorted(np.concatenate(rows).tolist()) == list(range(len(lengths)))
        for some in rows:
            longest = max(max(lengths[row]) for row in some.tolist())
            assert len(some) == 1 or len(some) * longest <= tokens


@given(LENGTHS)
def test_a_batch_depends_on_its_number_alone(lengths: list[tuple[int, int]]) -> None:
    first, second = batches(lengths, seed=3), batches(lengths, seed=3)
    numbers = list(range(2 * len(first)))
    forward = {number: first.rows(number).tolist() for number in numbers}
    assert forward == {number: second.rows(number).tolist() for number in numbers[::-1]}


def test_epochs_and_seeds_differ() -> None:
    lengths = [(5, 5)] * 200
    made, other = batches(lengths), batches(lengths, seed=1)
    drawn = [made.rows(0).tolist(), made.rows(len(made)).tolist(), other.rows(0).tolist()]
    assert len({tuple(one) for one in drawn}) == 3


def test_the_tensors_of_a_batch() -> None:
    made = batches([(3, 2), (1, 4)], tokens=64)
    batch = made.batch(np.array([0]))
    order = np.argsort(batch["source_ids"][:, 0].numpy())
    rows = {name: tensor[order.copy()].tolist() for name, tensor in batch.items()}
    assert rows["source_ids"] == [[1000, 1000, 1000], [1001, PAD, PAD]]
    assert rows["source_mask"] == [[True] * 3, [True, False, False]]
    assert rows["target_inputs"] == [[7, 5000, 5000, PAD], [7, 5001, 5001, 5001]]
    assert rows["labels"] == [[5000, 5000, -100, -100], [5001] * 4]


def test_without_padding_there_is_no_mask() -> None:
    assert "source_mask" not in batches([(3, 2), (3, 1)]).batch(np.array([0]))


def test_padding_is_what_the_tensors_hold() -> None:
    made = batches([(i % 9 + 1, i % 7 + 1) for i in range(100)])
    places = tokens = 0
    for number in range(len(made)):
        batch = made.batch(np.array([number]))
        places += batch["source_ids"].numel() + batch["labels"].numel()
        tokens += int((batch["source_ids"] != PAD).sum()) + int((batch["labels"] != -100).sum())
    assert made.padding() == pytest.approx(1 - tokens / places)


def test_held_out_pairs_come_once_in_order_of_length() -> None:
    lengths = [(i % 9 + 1, i % 7 + 1) for i in range(50)]
    made = HeldOutPairs(pairs(lengths), tokens=32, pad_token_id=PAD, start_token_id=7)
    found = [int(row) - 1000 for n in range(len(made)) for row in made.batch(np.array([n]))["source_ids"][:, 0]]
    assert sorted(found) == list(range(50))
    assert [max(lengths[i]) for i in found] == sorted(max(pair) for pair in lengths)


def test_taking_pairs_keeps_their_tokens() -> None:
    some = pairs([(3, 2), (1, 4), (2, 2)]).take(np.array([2, 0]))
    assert some.sources.ids.tolist() == [1002, 1002, 1000, 1000, 1000]
    assert some.targets.lengths.tolist() == [2, 2]


def test_sides_of_different_length_are_a_defect() -> None:
    with pytest.raises(ValueError, match="2 sources and 1 targets"):
        EncodedPairs(texts([1, 1], 0), texts([1], 0))
