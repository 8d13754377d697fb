"""Unlabelled texts as training batches: the next token of each text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rung.data.label_batches import LengthGroupedOrder
from rung.data.pack import IGNORE_INDEX
from rung.data.text_encoder import EncodedTexts

if TYPE_CHECKING:
    from torch import Tensor


class NextTokenBatches:
    """Texts whose every token is to be predicted from those before it in its text, and after the last one the end.

    A batch holds `input_ids` and `labels`, (batch, time) int64, labels shifted by one and -100 at padding; a network
    that only looks back needs no mask.
    """

    def __init__(self, texts: EncodedTexts, *, end_token_id: int, batch_size: int, seed: int) -> None:
        self._texts, self._end_token_id = texts, end_token_id
        self._order = LengthGroupedOrder(texts.lengths, batch_size=batch_size, seed=seed)

    def batch(self, sample_numbers: NDArray[np.int64]) -> dict[str, Tensor]:
        """The samples of these numbers, padded on the right."""
        import torch

        ids, mask = self._texts.padded(self._order.locate(sample_numbers), self._end_token_id)
        following = np.full_like(ids, self._end_token_id)  # also what stands at padding, right after the last token
        following[:, :-1] = ids[:, 1:]
        labels = np.where(mask, following, IGNORE_INDEX)
        return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
