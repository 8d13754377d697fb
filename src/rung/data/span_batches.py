"""Raw text as pairs of a window with gaps and what was in them: batches for pretraining an encoder-decoder.

Windows lose no token of the text. As T5 reads its pretraining text, they go over the ends of short documents: a window
of fewer than 34 tokens has only one gap, and that always at its end. Which spans of a window are hidden depends on
seed, epoch and window alone, so the whole state of the data is again one integer; how long source and target become
follows from the length of the window, so that batches are cut as for pairs (`rung.data.pair_batches`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from rung.data.pair_batches import EncodedPairs, LengthGroups, collate_pairs
from rung.data.span_corruption import SpanCorruption
from rung.data.text_encoder import EncodedTexts
from rung.data.text_windows import equal_pieces
from rung.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GappedWindows:
    """Windows over a stream of tokens without special tokens, one after the other: `ids` (tokens,), `lengths`."""

    ids: NDArray[np.uint32]
    lengths: Ints
    corruption: SpanCorruption
    end_token_id: int

    @classmethod
    def cut(
        cls, ids: NDArray[np.uint32], lengths: Ints, corruption: SpanCorruption, *, most: int, end_token_id: int
    ) -> Self:
        """Cut documents of `lengths` tokens into windows of at most `most` (>= 4), all of one document about as long.

        Documents of fewer tokens are read together with the next. Raises DataError when there are not two tokens.
        """
        if len(ids) < 2:
            raise DataError(f"a text of {len(ids)} tokens leaves nothing to hide", hint="give more text")
        _, first, last = equal_pieces(_joined_lengths(lengths, most), most)
        return cls(ids, last - first, corruption, end_token_id)

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> Ints:
        """Where each window begins in `ids`."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def longer(self) -> Ints:
        """(windows,) tokens of source or target, whichever has more, with the end token."""
        sizes, place = np.unique(self.lengths, return_inverse=True)
        return np.array([self._longer(size) for size in sizes.tolist()], dtype=np.int64)[place]

    def _longer(self, length: int) -> int:
        hidden, spans = self.corruption.spans(length)
        return 1 + max(length - hidden + spans, hidden + spans + 1)

    def pairs(self, windows: Ints, epoch: int) -> EncodedPairs:
        """These windows with the gaps of an epoch."""
        sources, targets = [], []
        for window, start in zip(windows.tolist(), self.starts[windows].tolist(), strict=True):
            tokens = self.ids[start : start + int(self.lengths[window])].tolist()
            source, target = self.corruption.corrupt(tokens, epoch, window)
            sources.append([*source, self.end_token_id])
            targets.append([*target, self.end_token_id])
        return EncodedPairs(_joined(sources), _joined(targets))


class SpanBatches:
    """Batches of at most `tokens` tokens a side, as `rung.data.pair_batches.PairBatches` makes them of pairs."""

    def __init__(
        self, windows: GappedWindows, *, tokens: int, pad_token_id: int, start_token_id: int, seed: int
    ) -> None:
        self._windows, self._pad, self._start = windows, pad_token_id, start_token_id
        self._groups = LengthGroups(windows.longer, tokens=tokens, seed=seed)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._groups)

    def batch(self, sample_numbers: Ints) -> dict[str, Tensor]:
        """The windows of these batches together, padded on the right; each batch with the gaps of its epoch."""
        located = [self._groups.locate(number) for number in sample_numbers.tolist()]
        made = [self._windows.pairs(windows, epoch) for epoch, windows in located]
        pairs = EncodedPairs(_concatenated([one.sources for one in made]), _concatenated([one.targets for one in made]))
        return collate_pairs(pairs, np.arange(len(pairs)), pad_token_id=self._pad, start_token_id=self._start)


def _joined_lengths(lengths: Ints, most: int) -> Ints:
    """Tokens of documents, those of fewer than `most` taken together with what follows; the last with what precedes."""
    joined: list[int] = [0]
    for length in lengths.tolist():
        if joined[-1] < most:
            joined[-1] += length
        else:
            joined.append(length)
    if len(joined) > 1 and joined[-1] < most:
        joined[-2:] = [joined[-2] + joined[-1]]
    return np.array(joined, dtype=np.int64)


def _joined(texts: list[list[int]]) -> EncodedTexts:
    ids = np.array([token for text in texts for token in text], dtype=np.int32)
    return EncodedTexts(ids, np.array([len(text) for text in texts], dtype=np.int64))


def _concatenated(parts: list[EncodedTexts]) -> EncodedTexts:
    return EncodedTexts(np.concatenate([part.ids for part in parts]), np.concatenate([part.lengths for part in parts]))
