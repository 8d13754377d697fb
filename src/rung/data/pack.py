"""Windows of equal length that cover a token stream exactly once an epoch.

The stream of a split is a circle: the end-of-text token that closes the last document also precedes the first one.
Each epoch cuts the circle into windows of T targets, starting at a rotation keyed by (seed, epoch), so that a small
text that is read many times is cut elsewhere each time. Every token, end-of-text tokens included, is a target exactly
once an epoch; the input at a target's place is the token before it. The last window is filled up with targets -100.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from rung.data.order import SampleOrder, keyed_integers
from rung.data.shards import TokenShards
from rung.errors import DataError

if TYPE_CHECKING:
    import torch

IGNORE_INDEX = -100
"""The label of a place without a target (torch's default `ignore_index`)."""


class PackedTokens:
    """Batches of (input_ids, labels) by sample number."""

    def __init__(self, shards: TokenShards, *, context_length: int, seed: int) -> None:
        """`context_length` (>= 1) is T, the targets of a window. A text shorter than T gives one window, filled up.

        Raises DataError when `shards` holds no document.
        """
        if not shards.num_tokens:
            raise DataError(
                "there is no text here", where=str(shards.folder), hint="give more text, or a smaller held-out part"
            )
        self._shards = shards
        self._seed = seed
        self._rotation = lru_cache(maxsize=16)(self._keyed_rotation)
        self.context_length = context_length
        self.num_windows = -(-shards.num_tokens // context_length)
        """Samples of one epoch."""
        self.tokens_per_epoch = shards.num_tokens
        """Targets of one epoch."""
        self._order = SampleOrder(self.num_windows, seed)

    def batch(self, sample_numbers: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """`input_ids` and `labels`, both (samples, context_length) int64, for any sample numbers >= 0.

        `labels[i, t]` is the token that follows `input_ids[i, t]`, or -100 past the end of the epoch.
        """
        import torch

        epochs, windows = self._order.locate(np.asarray(sample_numbers, dtype=np.int64))
        length, total = self.context_length, self.tokens_per_epoch
        tokens = np.empty((len(windows), length + 1), dtype=np.int64)
        labels = np.empty((len(windows), length), dtype=np.int64)
        for row, (epoch, window) in enumerate(zip(epochs.tolist(), windows.tolist(), strict=True)):
            first = window * length  # of the targets, counted from the rotation
            targets = min(length, total - first)
            copy_circle(self._shards, self._rotation(epoch) + first - 1, tokens[row, : targets + 1])
            tokens[row, targets + 1 :] = self._shards.eos_token_id
            labels[row, :targets] = tokens[row, 1 : targets + 1]
            labels[row, targets:] = IGNORE_INDEX
        return {"input_ids": torch.from_numpy(tokens[:, :-1].copy()), "labels": torch.from_numpy(labels)}

    def _keyed_rotation(self, epoch: int) -> int:
        return keyed_integers("rotation", self._seed, epoch, 1)[0] % self.tokens_per_epoch


def copy_circle(shards: TokenShards, start: int, into: np.ndarray) -> None:
    """Fill `into` with the tokens from place `start` of the stream, taken as a circle, on; perhaps more than once."""
    done = 0
    while done < len(into):
        place = (start + done) % shards.num_tokens
        part = min(len(into) - done, shards.num_tokens - place)
        into[done : done + part] = shards.read(place, part)
        done += part
