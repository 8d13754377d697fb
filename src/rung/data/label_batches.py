"""Labelled texts as training batches: any sample by its global number, texts of similar length together."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rung.data.order import SampleOrder
from rung.data.text_encoder import EncodedTexts

if TYPE_CHECKING:
    from torch import Tensor

_BATCHES_SORTED_TOGETHER = 20
"""Texts of so many batches are sorted by length before they are cut: little is padded then, and any text still meets
very different ones from epoch to epoch."""


class LengthGroupedOrder:
    """Which text each sample number is: every text once an epoch, batches of similar lengths, in a keyed order.

    Batch number b holds samples b x batch_size ... in every epoch; where an epoch ends within a batch, that batch is
    filled from the next one. Everything follows from (seed, epoch): there is nothing to store.
    """

    def __init__(self, lengths: NDArray[np.int64], *, batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._order = SampleOrder(len(lengths), seed)
        self._batch_seed = seed + 1
        self.epoch = lru_cache(maxsize=2)(self._epoch)

    def locate(self, sample_numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The text of each sample number."""
        epochs, places = np.divmod(sample_numbers, len(self._lengths))
        texts = np.empty_like(places)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            texts[chosen] = self.epoch(int(epoch))[places[chosen]]
        return texts

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """All texts in the order of one epoch."""
        count, size = len(self._lengths), self._batch_size
        drawn = self._order.locate(np.arange(epoch * count, (epoch + 1) * count))[1]
        begun = min(-epoch * count % size, count)  # samples that fill the batch begun in the epoch before
        full = (count - begun) // size
        middle = drawn[begun : begun + full * size]
        groups = np.arange(len(middle)) // (size * _BATCHES_SORTED_TOGETHER)
        batches = middle[np.lexsort((self._lengths[middle], groups))].reshape(full, size)
        if full:
            numbers = np.arange(epoch * full, (epoch + 1) * full)
            batches = batches[SampleOrder(full, self._batch_seed).locate(numbers)[1]]
        return np.concatenate([drawn[:begun], batches.ravel(), drawn[begun + full * size :]])


class LabelBatches:
    """Batches of `input_ids` (batch, time), `labels` (batch,) and, where lengths differ, `mask` (batch, time)."""

    def __init__(
        self, texts: EncodedTexts, labels: NDArray[np.int64], *, pad_token_id: int, batch_size: int, seed: int
    ) -> None:
        self._texts, self._labels, self._pad_token_id = texts, labels, pad_token_id
        self._order = LengthGroupedOrder(texts.lengths, batch_size=batch_size, seed=seed)

    def batch(self, sample_numbers: NDArray[np.int64]) -> dict[str, Tensor]:
        """The samples of these numbers, padded on the right."""
        rows = self._order.locate(sample_numbers)
        return collate(self._texts, rows, self._pad_token_id, self._labels[rows])


class HeldOut:
    """Texts in order of their length, which is how they are quickest to score; sample numbers run once over them."""

    def __init__(self, texts: EncodedTexts, labels: NDArray[np.int64], *, pad_token_id: int) -> None:
        self._texts, self._labels, self._pad_token_id = texts, labels, pad_token_id
        self._rows = np.argsort(texts.lengths, kind="stable")

    def batch(self, sample_numbers: NDArray[np.int64]) -> dict[str, Tensor]:
        """The samples of these numbers, padded on the right."""
        rows = self._rows[sample_numbers]
        return collate(self._texts, rows, self._pad_token_id, self._labels[rows])


def collate(
    texts: EncodedTexts, rows: NDArray[np.int64], pad_token_id: int, labels: NDArray[np.int64] | None = None
) -> dict[str, Tensor]:
    """The texts `rows` as tensors. Without padding there is no mask: networks have a quicker way then."""
    import torch

    ids, mask = texts.padded(rows, pad_token_id)
    batch = {"input_ids": torch.from_numpy(ids)}
    if not mask.all():
        batch["mask"] = torch.from_numpy(mask)
    if labels is not None:
        batch["labels"] = torch.from_numpy(labels)
    return batch
