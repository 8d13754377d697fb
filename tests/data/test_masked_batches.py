"""Hidden tokens: how many, which, replaced by what, and the same whenever they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.masked_batches import HeldOutMasks, MaskedTokenBatches, Masking
from rung.data.pack import IGNORE_INDEX
from rung.data.text_encoder import train_byte_pairs
from rung.data.text_windows import TextWindows
from rung.data.wordpiece import train_wordpieces
from rung.errors import TokenizerError

_DRAW = np.random.default_rng(0)
WORDS = ["".join(_DRAW.choice(list("abcdef"), _DRAW.integers(1, 9))) for _ in range(300)]
TEXT = " ".join(WORDS)
ENCODER = train_wordpieces([TEXT], vocab_size=200)
CONTINUES = ENCODER.word_joints().goes_on
SPECIAL = ENCODER.special_ids()
MASK = ENCODER.token_id("mask_token")


def rows_of(words: int, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Padded ids and real places of made-up texts."""
    draw = np.random.default_rng(seed)
    texts = [" ".join(draw.choice(WORDS, draw.integers(1, words + 1))) for _ in range(rows)]
    encoded = ENCODER.encode(texts)
    return encoded.padded(np.arange(rows), ENCODER.pad_token_id)


@given(
    words=st.integers(1, 30),
    rows=st.integers(1, 6),
    seed=st.integers(0, 2**40),
    share=st.floats(0.05, 0.9),
    whole_words=st.booleans(),
    only_masks=st.booleans(),
)
def test_only_text_is_hidden_and_only_text_stands_in(
    words: int, rows: int, seed: int, share: float, *, whole_words: bool, only_masks: bool
) -> None:
    ids, real = rows_of(words, rows, seed % 1000)
    masking = Masking(ENCODER, seed=seed, share=share, whole_words=whole_words, only_masks=only_masks)
    inputs, labels = masking.hide(ids, real, np.arange(rows))
    hidden = labels != IGNORE_INDEX
    assert np.array_equal(labels[hidden], ids[hidden])
    assert np.array_equal(inputs[~hidden], ids[~hidden])
    assert not np.isin(ids[hidden], SPECIAL).any()
    assert not hidden[~real].any()
    swapped = hidden & (inputs != MASK)
    assert not np.isin(inputs[swapped], SPECIAL).any()
    assert not (only_masks and swapped.any())
    if whole_words:  # a piece is hidden exactly if the piece before it in its word is
        follows = CONTINUES[ids[:, 1:]] & real[:, 1:]
        assert np.array_equal(hidden[:, 1:][follows], hidden[:, :-1][follows])
    again = Masking(ENCODER, seed=seed, share=share, whole_words=whole_words, only_masks=only_masks)
    for one, other in zip(again.hide(ids, real, np.arange(rows)), (inputs, labels), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("whole_words", [True, False])
def test_15_percent_are_hidden_of_which_80_10_10(*, whole_words: bool) -> None:
    ids, real = rows_of(200, 400)
    inputs, labels = Masking(ENCODER, seed=1, whole_words=whole_words).hide(ids, real, np.arange(400))
    hidden = labels != IGNORE_INDEX
    ordinary = real & ~np.isin(ids, SPECIAL)
    assert abs(hidden.sum() / ordinary.sum() - 0.15) < 0.005
    kept = inputs[hidden] == labels[hidden]
    assert abs((inputs[hidden] == MASK).mean() - 0.8) < 0.01
    assert abs(kept.mean() - 0.1 - 0.1 / (ENCODER.vocab_size - len(SPECIAL))) < 0.01
    drawn = inputs[hidden & (inputs != MASK) & (inputs != ids)]
    counts = np.bincount(drawn, minlength=ENCODER.vocab_size)
    assert (np.delete(counts, SPECIAL) > 0).all()  # every ordinary token may stand in


def test_every_token_of_the_vocabulary_can_be_hidden() -> None:
    ids, real = rows_of(30, 10)
    hidden = np.zeros_like(real)
    masking = Masking(ENCODER, seed=2)
    for number in range(60):
        hidden |= masking.hide(ids, real, np.arange(10) + 10 * number)[1] != IGNORE_INDEX
    assert hidden[real & ~np.isin(ids, SPECIAL)].all()


def windows() -> TextWindows:
    texts = [" ".join(WORDS[start : start + 7 + start % 5]) for start in range(0, 280, 7)]
    return TextWindows.of_texts(texts, encoder=ENCODER, max_length=16)


def samples(batches: MaskedTokenBatches, numbers: np.ndarray) -> list[tuple[list[int], list[int]]]:
    """Inputs and labels of these samples, each without its padding."""
    found = []
    batch = batches.batch(numbers)
    ids, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
    mask = batch["mask"].numpy() if "mask" in batch else np.ones_like(ids, dtype=bool)
    for row, real in enumerate(mask):
        found.append((ids[row][real].tolist(), labels[row][real].tolist()))
    return found


def batches(seed: int = 0) -> MaskedTokenBatches:
    return MaskedTokenBatches(windows(), Masking(ENCODER, seed=seed), batch_size=8, seed=seed)


@given(cut=st.integers(1, 79))
def test_micro_batches_and_resumption_change_nothing(cut: int) -> None:
    whole = samples(batches(), np.arange(80))
    parts = samples(batches(), np.arange(cut)) + samples(batches(), np.arange(cut, 80))
    assert whole == parts


def test_each_epoch_reads_every_window_once_and_hides_other_tokens() -> None:
    count = len(windows())
    epochs = [samples(batches(), np.arange(count) + epoch * count) for epoch in range(2)]

    def whole(sample: tuple[list[int], list[int]]) -> tuple[int, ...]:
        return tuple(label if label != IGNORE_INDEX else token for token, label in zip(*sample, strict=True))

    assert sorted(map(whole, epochs[0])) == sorted(map(whole, epochs[1]))
    hidden = [
        {(whole(sample), place) for sample in epoch for place, label in enumerate(sample[1]) if label != IGNORE_INDEX}
        for epoch in epochs
    ]
    assert len(hidden[0] & hidden[1]) < 0.4 * len(hidden[0])  # independent draws of 15 % share about 15 % of theirs


def test_held_out_masks_never_change_and_cover_the_windows_asked_for() -> None:
    masking = Masking(ENCODER, seed=0)
    held_out = HeldOutMasks(windows(), masking, np.array([3, 0, 7]))
    assert sorted(held_out.rows.tolist()) == [0, 3, 7]
    first = held_out.batch(np.arange(3))
    again = HeldOutMasks(windows(), masking, np.array([7, 0, 3])).batch(np.arange(3))
    for name, tensor in first.items():
        assert np.array_equal(tensor.numpy(), again[name].numpy())
    assert (windows().lengths[held_out.rows][:-1] <= windows().lengths[held_out.rows][1:]).all()


def test_tokenizers_that_do_not_suit_are_refused() -> None:
    with pytest.raises(TokenizerError, match="mask_token"):
        Masking(train_byte_pairs([TEXT], vocab_size=300), seed=0)
