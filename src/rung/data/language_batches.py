"""Unlabelled texts as training batches: the next token of each text, or tokens hidden at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rung.data.hashing import mix64
from rung.data.label_batches import LengthGroupedOrder
from rung.data.order import keyed_integers
from rung.data.pack import IGNORE_INDEX
from rung.data.text_encoder import EncodedTexts

if TYPE_CHECKING:
    from torch import Tensor

_HIDDEN_SHARE = 0.15
_MASKED, _RANDOM = 0.8, 0.1  # of the hidden tokens; the others stay as they are (BERT, appendix A.1)


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


class MaskedTokenBatches:
    """Texts with 15 % of their tokens hidden, other ones each epoch: 80 % by `[MASK]`, 10 % by any token, 10 % not.

    Every draw is a hash of the seed, the sample number and the place: no micro-batch or rank changes it.
    A batch holds `input_ids`, `labels` (-100 where nothing is hidden) and, where lengths differ, `mask`.
    """

    def __init__(
        self,
        texts: EncodedTexts,
        *,
        pad_token_id: int,
        mask_token_id: int,
        special_ids: Sequence[int],
        vocab_size: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self._texts, self._pad_token_id, self._mask_token_id = texts, pad_token_id, mask_token_id
        self._special_ids, self._vocab_size = np.array(special_ids), vocab_size
        self._order = LengthGroupedOrder(texts.lengths, batch_size=batch_size, seed=seed)
        self._keys = [np.uint64(key) for key in keyed_integers("masks", seed, 0, 3)]

    def batch(self, sample_numbers: NDArray[np.int64]) -> dict[str, Tensor]:
        """The samples of these numbers, padded on the right."""
        import torch

        ids, mask = self._texts.padded(self._order.locate(sample_numbers), self._pad_token_id)
        chance, way, token = (self._draw(key, sample_numbers, ids.shape[1]) for key in self._keys)
        hidden = (chance < _HIDDEN_SHARE) & mask & ~np.isin(ids, self._special_ids)
        labels = np.where(hidden, ids, IGNORE_INDEX)
        masked = hidden & (way < _MASKED)
        swapped = hidden & (way >= _MASKED) & (way < _MASKED + _RANDOM)
        ids = np.where(masked, self._mask_token_id, np.where(swapped, (token * self._vocab_size).astype(np.int64), ids))
        batch = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
        return batch if mask.all() else {**batch, "mask": torch.from_numpy(mask)}

    @staticmethod
    def _draw(key: np.uint64, sample_numbers: NDArray[np.int64], time: int) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1), (samples, time)."""
        rows = mix64(sample_numbers.astype(np.uint64) + key)
        bits = mix64(rows[:, None] + np.arange(time, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
