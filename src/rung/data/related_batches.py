"""Rows of related texts as training batches: any sample by its global number, all texts of a row in one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rung.data.label_batches import LengthGroupedOrder
from rung.data.order import SampleOrder
from rung.data.text_encoder import EncodedTexts

if TYPE_CHECKING:
    from torch import Tensor


class RelatedBatches:
    """Batches of `input_ids` and `mask` (batch, columns, time), and `scores` (batch,) where there are some.

    Without scores, `texts` (batch, columns) has equal numbers for equal texts: two rows with one text in common are no
    negatives of each other.

    Batches are drawn at random where `compared`, that is where the loss compares rows with each other: what is in a
    batch then decides what is learned. (With lengths grouped, long pairs of news would never be ranked against short
    captions.) Otherwise rows of similar length come together, and less is padded.
    """

    def __init__(
        self,
        columns: Sequence[EncodedTexts],
        *,
        scores: NDArray[np.float64] | None,
        texts: NDArray[np.uint64],
        pad_token_id: int,
        batch_size: int,
        compared: bool,
        seed: int,
    ) -> None:
        self._columns, self._scores, self._pad_token_id = columns, scores, pad_token_id
        self._texts = np.unique(texts, return_inverse=True)[1].reshape(texts.shape)
        longest = np.max([column.lengths for column in columns], axis=0)
        if compared:
            self._at_random = SampleOrder(len(longest), seed)
            self._grouped = None
        else:
            self._grouped = LengthGroupedOrder(longest, batch_size=batch_size, seed=seed)

    def batch(self, sample_numbers: NDArray[np.int64]) -> dict[str, Tensor]:
        """The samples of these numbers, padded on the right to the longest text of all columns."""
        import torch

        if self._grouped is not None:
            rows = self._grouped.locate(sample_numbers)
        else:
            rows = self._at_random.locate(sample_numbers)[1]
        padded = [column.padded(rows, self._pad_token_id) for column in self._columns]
        longest = max(ids.shape[1] for ids, _ in padded)
        shape = (len(rows), len(padded), longest)
        input_ids, mask = np.full(shape, self._pad_token_id, dtype=np.int64), np.zeros(shape, dtype=bool)
        for place, (ids, is_token) in enumerate(padded):
            input_ids[:, place, : ids.shape[1]], mask[:, place, : ids.shape[1]] = ids, is_token
        batch = {"input_ids": torch.from_numpy(input_ids), "mask": torch.from_numpy(mask)}
        if self._scores is None:
            batch["texts"] = torch.from_numpy(self._texts[rows])
        else:
            batch["scores"] = torch.from_numpy(self._scores[rows].astype(np.float32))
        return batch
