"""Pairs of texts as training batches of about equal work: as many pairs of similar length as a budget of tokens holds.

A sample of the training loop is one such batch. Batches are cut from the pairs in order of length, and where to cut
follows from the lengths alone: every epoch has as many batches, and sample number b is batch b % n of epoch b // n.
Which of the pairs of one length are together, and the order of batches, are drawn anew for each epoch by its key. So
every pair is seen exactly once an epoch, and the whole state of the data is one integer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rung.data.order import SampleOrder
from rung.data.pack import IGNORE_INDEX
from rung.data.text_encoder import EncodedTexts

if TYPE_CHECKING:
    from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EncodedPairs:
    """Token ids of both sides, each text with its end token."""

    sources: EncodedTexts
    targets: EncodedTexts

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.targets):
            raise ValueError(f"{len(self.sources)} sources and {len(self.targets)} targets")

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def longer(self) -> Ints:
        """(pairs,) tokens of the longer side."""
        return np.maximum(self.sources.lengths, self.targets.lengths)

    def take(self, rows: Ints) -> EncodedPairs:
        """These pairs, in the order of `rows`."""
        return EncodedPairs(_taken(self.sources, rows), _taken(self.targets, rows))


class LengthGroups:
    """Which items are together in each batch: items of similar length, drawn anew for each epoch, each once."""

    def __init__(self, lengths: Ints, *, tokens: int, seed: int) -> None:
        """`lengths` (items,) in tokens; a batch holds at most `tokens` with padding, or one longer item."""
        self._lengths = lengths
        self._cuts = _cut(np.sort(lengths), tokens)
        self._members, self._batches = SampleOrder(len(lengths), seed), SampleOrder(len(self), seed + 1)
        self._order = lru_cache(maxsize=2)(self._drawn)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._cuts) - 1

    def locate(self, sample_number: int) -> tuple[int, Ints]:
        """The epoch of one batch, and the items in it."""
        epochs, numbers = self._batches.locate(np.array([sample_number]))
        epoch, number = int(epochs[0]), int(numbers[0])
        return epoch, self._order(epoch)[self._cuts[number] : self._cuts[number + 1]]

    def _drawn(self, epoch: int) -> Ints:
        """All items by length; those of one length in the order of this epoch."""
        count = len(self._lengths)
        drawn = self._members.locate(np.arange(epoch * count, (epoch + 1) * count))[1]
        return drawn[np.argsort(self._lengths[drawn], kind="stable")]


class PairBatches:
    """Batches of at most `tokens` tokens a side, padding included; a longer pair is a batch of its own.

    A batch holds `source_ids` (pairs, source), `source_mask` where lengths differ, `target_inputs` (pairs, target),
    which begin with `start_token_id`, and `labels` (pairs, target), -100 at padding.
    """

    def __init__(self, pairs: EncodedPairs, *, tokens: int, pad_token_id: int, start_token_id: int, seed: int) -> None:
        self._pairs, self._pad, self._start = pairs, pad_token_id, start_token_id
        self._groups = LengthGroups(pairs.longer, tokens=tokens, seed=seed)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._groups)

    def rows(self, sample_number: int) -> Ints:
        """The pairs of one batch."""
        return self._groups.locate(sample_number)[1]

    def batch(self, sample_numbers: Ints) -> dict[str, Tensor]:
        """The pairs of these batches together, padded on the right."""
        rows = np.concatenate([self.rows(number) for number in sample_numbers.tolist()])
        return collate_pairs(self._pairs, rows, pad_token_id=self._pad, start_token_id=self._start)

    def padding(self) -> float:
        """The share of padding among all positions of both sides in one epoch."""
        places = 0
        for number in range(len(self)):
            rows = self.rows(number)
            places += len(rows) * int(sum(side.lengths[rows].max() for side in self._sides))
        return 1 - sum(int(side.lengths.sum()) for side in self._sides) / places

    @property
    def _sides(self) -> tuple[EncodedTexts, EncodedTexts]:
        return self._pairs.sources, self._pairs.targets


class HeldOutPairs:
    """Pairs once, in order of length; sample numbers are those of `PairBatches`, without any draw."""

    def __init__(self, pairs: EncodedPairs, *, tokens: int, pad_token_id: int, start_token_id: int) -> None:
        self._pairs, self._pad, self._start = pairs, pad_token_id, start_token_id
        self._order = np.argsort(pairs.longer, kind="stable")
        self._cuts = _cut(pairs.longer[self._order], tokens)

    def __len__(self) -> int:
        return len(self._cuts) - 1

    def batch(self, sample_numbers: Ints) -> dict[str, Tensor]:
        """The pairs of these batches together, padded on the right."""
        rows = np.concatenate([self._order[self._cuts[i] : self._cuts[i + 1]] for i in sample_numbers.tolist()])
        return collate_pairs(self._pairs, rows, pad_token_id=self._pad, start_token_id=self._start)


def collate_pairs(pairs: EncodedPairs, rows: Ints, *, pad_token_id: int, start_token_id: int) -> dict[str, Tensor]:
    """The pairs `rows` as tensors; see `PairBatches`."""
    import torch

    sources, source_mask = pairs.sources.padded(rows, pad_token_id)
    targets, target_mask = pairs.targets.padded(rows, pad_token_id)
    inputs = np.full_like(targets, start_token_id)
    inputs[:, 1:] = targets[:, :-1]
    labels = np.where(target_mask, targets, IGNORE_INDEX)
    batch = {
        "source_ids": torch.from_numpy(sources),
        "target_inputs": torch.from_numpy(inputs),
        "labels": torch.from_numpy(labels),
    }
    return batch if source_mask.all() else {**batch, "source_mask": torch.from_numpy(source_mask)}


def _taken(texts: EncodedTexts, rows: Ints) -> EncodedTexts:
    lengths = texts.lengths[rows]
    places = np.repeat(texts.starts[rows] - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
    return EncodedTexts(texts.ids[places], lengths)


def _cut(lengths: Ints, tokens: int) -> Ints:
    """Where batches begin and end among pairs of ascending `lengths`: as many pairs as fit when padded to the last."""
    cuts = [0]
    for place, length in enumerate(lengths.tolist()):
        if place > cuts[-1] and (place + 1 - cuts[-1]) * length > tokens:
            cuts.append(place)
    return np.array([*cuts, len(lengths)], dtype=np.int64)
