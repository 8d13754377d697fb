"""Documents cut into windows `[CLS] tokens [SEP]` for networks that look both ways.

No token is lost or read twice, and no window holds more than one document, so nothing is guessed from a text that has
nothing to do with it (RoBERTa's DOC-SENTENCES, arXiv 1907.11692, section 4.2, which did best there). A document that
needs k windows is cut into k equal ones: the last is no crumb, and every token has about as much around it. Windows of
short documents are short; batches of windows of similar length keep padding small.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rung.data.shards import TokenShards
from rung.data.text_encoder import TextEncoder
from rung.errors import DataError

AROUND = 2
"""Tokens around those of the text."""


def equal_pieces(lengths: NDArray[np.int64], most: int) -> tuple[NDArray[np.int64], ...]:
    """Cut documents of these lengths into as few pieces of at most `most` tokens as will do, as equal as can be.

    Returns, for every piece, the number of its document, and where in that it begins and ends: (pieces,) each.
    """
    pieces = -(-lengths // most)
    owner = np.repeat(np.arange(len(pieces)), pieces)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    inside, count = lengths[owner], pieces[owner]
    return owner, number * inside // count, (number + 1) * inside // count


class TextWindows:
    """Windows over a stream of tokens; all arrays are (windows,).

    `starts`: where each begins in the stream; `lengths` in tokens, brackets included; `owners`: number of its document.
    """

    def __init__(
        self,
        read: Callable[[int, int], NDArray[np.unsignedinteger]],
        document_starts: NDArray[np.int64],
        document_lengths: NDArray[np.int64],
        *,
        encoder: TextEncoder,
        max_length: int,
    ) -> None:
        """Cut documents of the stream into windows of at most `max_length` (>= 3) tokens, brackets included.

        `read(start, length)` gives tokens of the stream. Raises DataError when no document has a token.
        """
        opening = encoder.token_id("cls_token")
        if opening is None:
            raise DataError("the tokenizer has no cls_token", hint="use a tokenizer of BERT's kind")
        self._read = read
        self._opening, self._closing, self.pad_token_id = opening, encoder.eos_token_id, encoder.pad_token_id
        owner, first, last = equal_pieces(document_lengths, max_length - AROUND)
        self.owners: NDArray[np.int64] = owner
        self.starts: NDArray[np.int64] = document_starts[owner] + first
        self.lengths: NDArray[np.int64] = last - first + AROUND
        if not len(self.starts):
            raise DataError("there is no text here", hint="give more text")

    @classmethod
    def of_texts(cls, texts: list[str], *, encoder: TextEncoder, max_length: int) -> TextWindows:
        """Windows of texts in memory, each a document."""
        ids, lengths = encoder.encode_ragged(texts)
        starts = np.cumsum(lengths) - lengths
        return cls(
            lambda start, length: ids[start : start + length], starts, lengths, encoder=encoder, max_length=max_length
        )

    @classmethod
    def of_shards(
        cls,
        shards: TokenShards,
        *,
        encoder: TextEncoder,
        max_length: int,
        documents: NDArray[np.int64] | None = None,
    ) -> TextWindows:
        """Windows of tokenised text: pieces of one source that follow one another are one document.

        With `documents`, of these alone, each by itself.
        """
        if documents is not None:
            bounds = np.asarray(shards.document_starts)
            starts, ends = bounds[documents], bounds[documents + 1]
            is_closed = np.append(~shards.continues[1:], True)[documents]
            lengths = ends - starts - is_closed
            return cls(shards.read, starts, lengths, encoder=encoder, max_length=max_length)
        borders = np.array(shards.streams(), dtype=np.int64).reshape(-1, 2)
        starts = np.asarray(shards.document_starts)[borders]
        lengths = starts[:, 1] - starts[:, 0] - 1  # without the token that closes the last piece
        return cls(shards.read, starts[:, 0], lengths, encoder=encoder, max_length=max_length)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def num_tokens(self) -> int:
        """Tokens of the text in all windows together."""
        return int(self.lengths.sum()) - AROUND * len(self)

    def padded(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids (rows, time) of the windows `rows`, padded on the right, and a mask, true for tokens."""
        lengths = self.lengths[rows]
        ids = np.full((len(rows), int(lengths.max(initial=0))), self.pad_token_id, dtype=np.int64)
        for row, (start, length) in enumerate(zip(self.starts[rows].tolist(), lengths.tolist(), strict=True)):
            ids[row, 0], ids[row, length - 1] = self._opening, self._closing
            ids[row, 1 : length - 1] = self._read(start, length - AROUND)
        return ids, np.arange(ids.shape[1]) < lengths[:, None]
