"""Text read in lanes: row r of each batch goes on where row r of the batch before ended, for networks that remember.

The stream of a split is a circle, as in `rung.data.pack`. `lanes` readers start on it at even distances, at a rotation
keyed by the seed, and read on for ever, a window of `length` targets a step. Evenly spaced readers of one pace cover
the circle evenly: at any time no token has been a target more than once more often than any other. So every token,
end-of-text tokens included, is a target once in each reading of the text, and nothing is filled up or cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rung.data.order import keyed_integers
from rung.data.pack import copy_circle
from rung.data.shards import TokenShards
from rung.errors import DataError

if TYPE_CHECKING:
    import torch


class LaneTokens:
    """Batches of (input_ids, labels, lanes, windows) by sample number: sample s is window s // lanes of lane s % lanes.

    The state of the order is the sample number alone. What a network remembers of a lane is not kept here.
    """

    def __init__(self, shards: TokenShards, *, lanes: int, length: int, seed: int) -> None:
        """`lanes` and `length` (both >= 1). Raises DataError when `shards` holds no document."""
        if not shards.num_tokens:
            raise DataError(
                "there is no text here", where=str(shards.folder), hint="give more text, or a smaller held-out part"
            )
        self._shards = shards
        self.lanes, self.length = lanes, length
        self.num_windows = -(-shards.num_tokens // (lanes * length))
        """Windows of a lane after which every token has been a target."""
        self._rotation = keyed_integers("lanes", seed, 0, 1)[0] % shards.num_tokens

    def batch(self, sample_numbers: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """`input_ids` and `labels`, (samples, length) int64, and `lanes` and `windows`, (samples,) int64.

        `labels[i, t]` is the token that follows `input_ids[i, t]`.
        """
        import torch

        windows, lanes = np.divmod(np.asarray(sample_numbers, dtype=np.int64), self.lanes)
        tokens = np.empty((len(lanes), self.length + 1), dtype=np.int64)
        total = self._shards.num_tokens
        for row, (window, lane) in enumerate(zip(windows.tolist(), lanes.tolist(), strict=True)):
            first = self._rotation + lane * total // self.lanes + window * self.length  # of the targets
            copy_circle(self._shards, first - 1, tokens[row])
        return {
            "input_ids": torch.from_numpy(tokens[:, :-1].copy()),
            "labels": torch.from_numpy(tokens[:, 1:].copy()),
            "lanes": torch.from_numpy(lanes),
            "windows": torch.from_numpy(windows),
        }
