"""Batches of texts: each text once an epoch, similar lengths together, any piece of the order computable alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rung.data.label_batches import HeldOut, LabelBatches, LengthGroupedOrder
from rung.data.language_batches import NextTokenBatches
from rung.data.pack import IGNORE_INDEX
from rung.data.text_encoder import EncodedTexts


def encoded(lengths: NDArray[np.int64]) -> EncodedTexts:
    """Texts of these lengths; all tokens are different, from 10 on, so that each tells its place."""
    return EncodedTexts(np.arange(10, 10 + lengths.sum(), dtype=np.int32), lengths)


lengths_of_texts = st.lists(st.integers(1, 40), min_size=1, max_size=120).map(np.array)


@given(lengths=lengths_of_texts, batch_size=st.integers(1, 50), seed=st.integers(0, 5), epochs=st.integers(1, 4))
def test_every_epoch_holds_every_text_once(lengths: NDArray[np.int64], batch_size: int, seed: int, epochs: int) -> None:
    count = len(lengths)
    order = LengthGroupedOrder(lengths, batch_size=batch_size, seed=seed)
    located = order.locate(np.arange(epochs * count))
    for epoch in np.split(located, epochs):
        assert sorted(epoch) == list(range(count))


@given(lengths=lengths_of_texts, start=st.integers(0, 300), size=st.integers(1, 30))
def test_any_piece_of_the_order_is_the_same_alone(lengths: NDArray[np.int64], start: int, size: int) -> None:
    whole = LengthGroupedOrder(lengths, batch_size=7, seed=3).locate(np.arange(start + size))
    piece = LengthGroupedOrder(lengths, batch_size=7, seed=3).locate(np.arange(start, start + size))
    assert np.array_equal(piece, whole[start:])


def test_batches_are_of_similar_lengths_and_differ_from_epoch_to_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1003)
    order = LengthGroupedOrder(lengths, batch_size=20, seed=0)
    grouped = order.locate(np.arange(50 * 20 * 3))
    batches = lengths[grouped].reshape(-1, 20)
    assert (batches.max(1) * 20).sum() < 1.15 * batches.sum()  # in a random order: 1.9 times
    assert (np.diff(batches[:50].max(1)) < 0).sum() > 15  # short and long ones in turn, not one after the other
    assert not np.array_equal(np.sort(grouped[:20]), np.sort(grouped[1003:1023]))
    other = LengthGroupedOrder(lengths, batch_size=20, seed=1).locate(np.arange(1000))
    assert not np.array_equal(grouped[:1000], other)


@given(lengths=lengths_of_texts)
def test_a_batch_holds_the_texts_their_labels_and_a_mask_only_where_needed(lengths: NDArray[np.int64]) -> None:
    texts = encoded(lengths)
    labels = np.arange(len(lengths))
    batches = LabelBatches(texts, labels, pad_token_id=3, batch_size=4, seed=0)
    batch = batches.batch(np.arange(min(4, len(lengths))))
    assert ("mask" in batch) == (len(set(lengths[batch["labels"].numpy()])) > 1)
    for row, label in enumerate(batch["labels"].tolist()):
        wanted = texts.ids[texts.starts[label] :][: lengths[label]]
        ids = batch["input_ids"][row].numpy()
        assert np.array_equal(ids[: len(wanted)], wanted)
        assert (ids[len(wanted) :] == 3).all()
        if "mask" in batch:
            assert batch["mask"][row].sum() == len(wanted)


def test_held_out_texts_come_once_and_in_order_of_length() -> None:
    lengths = np.array([5, 1, 3, 1, 4])
    batch = HeldOut(encoded(lengths), np.arange(5), pad_token_id=0).batch(np.arange(5))
    assert batch["labels"].tolist() == [1, 3, 2, 4, 0]


def test_next_tokens_end_with_the_end() -> None:
    batches = NextTokenBatches(encoded(np.array([3, 1])), end_token_id=2, batch_size=2, seed=0)
    batch = batches.batch(np.arange(2))
    rows = sorted(zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True))
    assert rows == [([10, 11, 12], [11, 12, 2]), ([13, 2, 2], [2, IGNORE_INDEX, IGNORE_INDEX])]
