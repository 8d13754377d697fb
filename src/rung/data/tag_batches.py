"""Tagged sentences as tokens: each word's tokens, its tag at the first of them, in pieces that a network can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rung.data.label_batches import LengthGroupedOrder
from rung.data.text_encoder import EncodedTexts, TextEncoder
from rung.errors import TokenizerError

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
"""The label of a token that is no word's first; torch's default for what no loss is taken of."""


@dataclass(frozen=True)
class WordTokens:
    """Sentences as token ids, one piece after the other.

    `pieces`: ids with the special tokens around each piece. `first` (tokens,): true at a word's first token; read in
    order, these are all words of all sentences. `sentence` (pieces,): which sentence a piece is of. A sentence of more
    tokens than fit is cut between words into several pieces (`cut` counts such sentences).
    """

    pieces: EncodedTexts
    first: NDArray[np.bool_]
    sentence: NDArray[np.int64]
    cut: int

    def labels(self, tags: NDArray[np.int64]) -> NDArray[np.int64]:
        """(tokens,) the number of each word's tag at its first token, -100 elsewhere; `tags` (words,)."""
        found = np.full(len(self.first), IGNORED, dtype=np.int64)
        found[self.first] = tags
        return found


def word_tokens(sentences: Sequence[Sequence[str]], encoder: TextEncoder, *, max_length: int) -> WordTokens:
    """The tokens of sentences that are given in words; pieces have at most `max_length` tokens.

    A word is encoded by itself, behind a space where that makes a difference (byte-level tokenizers); of a word longer
    than a piece the first tokens are read. A word without a token becomes the unknown one.

    Raises TokenizerError when the tokenizer has no token that opens a text, or none for what it does not know.
    """
    opening, closing, unknown = encoder.token_id("cls_token"), encoder.eos_token_id, encoder.token_id("unk_token")
    if opening is None or unknown is None:
        raise TokenizerError(
            "the tokenizer names no cls_token or no unk_token", hint="tag with an encoder: BERT, RoBERTa, DistilBERT"
        )
    plain, spaced = (encoder.encode_ragged([text])[0] for text in ("a", " a"))
    before = "" if np.array_equal(plain, spaced) else " "
    room = max_length - 2
    ids: list[int] = []
    first: list[bool] = []
    lengths: list[int] = []
    sentence: list[int] = []
    for number, words in enumerate(sentences):
        tokens, counts = encoder.encode_ragged([before + word for word in words])
        stops = counts.cumsum()
        piece: list[int] = []
        marks: list[bool] = []

        def close(piece: list[int], marks: list[bool], number: int = number) -> None:
            ids.extend((opening, *piece, closing))
            first.extend((False, *marks, False))
            lengths.append(len(piece) + 2)
            sentence.append(number)

        for stop, count in zip(stops.tolist(), counts.tolist(), strict=True):
            word = tokens[stop - count : stop][:room].tolist() or [unknown]
            if len(piece) + len(word) > room:
                close(piece, marks)
                piece, marks = [], []
            piece += word
            marks += [True, *[False] * (len(word) - 1)]
        close(piece, marks)
    pieces = EncodedTexts(np.array(ids, dtype=np.int32), np.array(lengths, dtype=np.int64))
    of_sentence = np.array(sentence, dtype=np.int64)
    cut = int((np.bincount(of_sentence, minlength=len(sentences)) > 1).sum())
    return WordTokens(pieces, np.array(first, dtype=np.bool_), of_sentence, cut)


class TagBatches:
    """Batches of `input_ids` and `labels` (batch, time) and, where lengths differ, `mask` (batch, time).

    With a `seed`, samples are drawn anew each epoch, pieces of similar length together; without, they are in the order
    of their length, once.
    """

    def __init__(
        self,
        words: WordTokens,
        labels: NDArray[np.int64],
        *,
        pad_token_id: int,
        batch_size: int = 1,
        seed: int | None = None,
    ) -> None:
        """`labels` (tokens,) as `WordTokens.labels` gives them."""
        self._pieces, self._pad_token_id = words.pieces, pad_token_id
        self._labels = EncodedTexts(labels.astype(np.int32), words.pieces.lengths)
        self._sorted = np.argsort(words.pieces.lengths, kind="stable")
        self._order = (
            None if seed is None else LengthGroupedOrder(words.pieces.lengths, batch_size=batch_size, seed=seed)
        )

    def rows(self, sample_numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The piece of each sample number."""
        return self._sorted[sample_numbers] if self._order is None else self._order.locate(sample_numbers)

    def batch(self, sample_numbers: NDArray[np.int64]) -> dict[str, Tensor]:
        """The samples of these numbers, padded on the right."""
        import torch

        rows = self.rows(sample_numbers)
        ids, mask = self._pieces.padded(rows, self._pad_token_id)
        labels, _ = self._labels.padded(rows, IGNORED)
        batch = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
        if not mask.all():
            batch["mask"] = torch.from_numpy(mask)
        return batch
