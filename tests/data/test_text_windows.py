"""Windows lose no token, mix no documents, and leave no crumbs."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.shards import EncodedDocuments, TokenShards, write_shards
from rung.data.text_encoder import train_byte_pairs
from rung.data.text_windows import TextWindows
from rung.data.wordpiece import train_wordpieces
from rung.errors import DataError

WORDS = [a + b for a in "abcdefghij" for b in "klmnopqrst"]
ENCODER = train_wordpieces([" ".join(WORDS)] * 3, vocab_size=300)
CLS, SEP = (ENCODER.token_id(role) for role in ("cls_token", "sep_token"))


def inside(windows: TextWindows, rows: np.ndarray) -> list[list[int]]:
    """Tokens of these windows without brackets, which are checked."""
    ids, mask = windows.padded(rows)
    found = []
    for row, real in zip(ids, mask, strict=True):
        tokens = row[real]
        assert tokens[0] == CLS
        assert tokens[-1] == SEP
        assert (row[~real] == ENCODER.pad_token_id).all()
        found.append(tokens[1:-1].tolist())
    return found


@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=8), max_length=st.integers(3, 20))
def test_windows_hold_every_token_once_and_in_order(counts: list[int], max_length: int) -> None:
    texts = [" ".join(WORDS[number % 100] for number in range(count)) for count in counts]
    if not any(counts):
        with pytest.raises(DataError, match="no text"):
            TextWindows.of_texts(texts, encoder=ENCODER, max_length=max_length)
        return
    windows = TextWindows.of_texts(texts, encoder=ENCODER, max_length=max_length)
    parts = inside(windows, np.arange(len(windows)))
    for number, text in enumerate(texts):
        own = [part for part, owner in zip(parts, windows.owners, strict=True) if owner == number]
        ids, _ = ENCODER.encode_ragged([text])
        assert list(chain.from_iterable(own)) == ids.tolist()
        if own:
            sizes = [len(part) for part in own]
            assert max(sizes) <= max_length - 2
            assert max(sizes) - min(sizes) <= 1
            assert len(own) == -(-len(ids) // (max_length - 2))
    assert windows.num_tokens == sum(map(len, parts))


def shards(folder: Path, documents: list[list[int]], continues: list[bool]) -> TokenShards:
    batch = EncodedDocuments(
        tokens=np.array(list(chain.from_iterable(documents)), dtype=np.uint16),
        lengths=np.array([len(one) for one in documents]),
        nbytes=np.array([len(one) for one in documents]),
        sha256=np.arange(len(documents) * 32, dtype=np.uint8).reshape(-1, 32),
        continues=np.array(continues),
    )
    return write_shards(
        folder / "shards",
        [batch],
        tokenizer_sha256=ENCODER.sha256,
        eos_token_id=ENCODER.eos_token_id,
        vocab_size=ENCODER.vocab_size,
        shard_tokens=7,
    )


def test_pieces_of_one_source_are_one_document_and_alone_when_asked_for(tmp_path: Path) -> None:
    documents = [[10, 11, 12], [13, 14], [20, 21, 22, 23, 24], [30]]
    stored = shards(tmp_path, documents, [False, True, False, False])
    windows = TextWindows.of_shards(stored, encoder=ENCODER, max_length=5)
    found = inside(windows, np.arange(len(windows)))
    assert found == [[10, 11], [12, 13, 14], [20, 21], [22, 23, 24], [30]]
    assert windows.owners.tolist() == [0, 0, 1, 1, 2]
    chosen = np.array([0, 1, 3])
    alone = TextWindows.of_shards(stored, encoder=ENCODER, max_length=9, documents=chosen)
    assert inside(alone, np.arange(3)) == [documents[number] for number in chosen]


def test_a_tokenizer_without_brackets_is_refused() -> None:
    with pytest.raises(DataError, match="cls_token"):
        TextWindows.of_texts(["a"], encoder=train_byte_pairs(["a b"], vocab_size=300), max_length=9)
