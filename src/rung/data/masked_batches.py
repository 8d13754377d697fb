"""Windows of text with some tokens hidden: what a masked language model is trained and measured on (BERT, 3.1, A.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rung.data.hashing import mix64
from rung.data.label_batches import LengthGroupedOrder
from rung.data.order import keyed_integers
from rung.data.pack import IGNORE_INDEX
from rung.data.text_encoder import TextEncoder
from rung.data.text_windows import TextWindows
from rung.errors import TokenizerError

if TYPE_CHECKING:
    from torch import Tensor

SHARE = 0.15
_MASKED, _RANDOM = 0.8, 0.1  # of the hidden tokens while training; the others stay as they are
_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # the step of SplitMix64 (Steele et al. 2014)

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Masking:
    """Hides a share of the tokens: each word with this probability, all its pieces together, or each token.

    Of the hidden tokens 80 % become `[MASK]`, 10 % any ordinary token, 10 % stay; each is decided for itself, also
    within a word, as in BERT's whole-word masking. With `only_masks` all become `[MASK]`: a token that stays is
    easily guessed, which would flatter a measurement. Special tokens are never hidden and never stand in for another. A
    word that a window cuts in two counts as two.

    Every draw is a hash of the seed, a number that the caller gives to each row, and the place in the row.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        seed: int,
        share: float = SHARE,
        whole_words: bool = True,
        only_masks: bool = False,
    ) -> None:
        """Raises TokenizerError when the tokenizer has no mask token, or does not tell where words begin."""
        mask_token_id = encoder.token_id("mask_token")
        if mask_token_id is None:
            raise TokenizerError("the tokenizer has no mask_token", hint="use a tokenizer of BERT's kind")
        self.mask_token_id, self._share = mask_token_id, share
        self._masked, self._random = (1.0, 0.0) if only_masks else (_MASKED, _RANDOM)
        self._special = np.zeros(encoder.vocab_size, np.bool_)
        self._special[encoder.special_ids()] = True
        self._ordinary = np.flatnonzero(~self._special)
        self._joints = encoder.word_joints() if whole_words else None
        self._keys = [np.uint64(key) for key in keyed_integers("masks", seed, 0, 3)]

    def hide(self, ids: Ids, real: Flags, numbers: Ids) -> tuple[Ids, Ids]:
        """Return inputs and labels (rows, time) for `ids` of which the `real` are no padding.

        Labels are -100 where nothing is hidden. Rows with another of the `numbers` (rows,) are hidden differently.
        """
        chance, way, token = (_uniform(key, numbers, ids.shape[1]) for key in self._keys)
        candidates = real & ~self._special[ids]
        follows = np.zeros_like(candidates)
        if self._joints is not None:
            before, after = ids[:, :-1], ids[:, 1:]
            follows[:, 1:] = candidates[:, :-1] & self._joints.stays_open[before] & self._joints.goes_on[after]
        word = np.maximum.accumulate(np.where(follows, 0, np.arange(ids.shape[1])), axis=1)  # where each word begins
        hidden = candidates & (np.take_along_axis(chance, word, axis=1) < self._share)
        inputs = ids.copy()
        inputs[hidden & (way < self._masked)] = self.mask_token_id
        swapped = hidden & (way >= self._masked) & (way < self._masked + self._random)
        inputs[swapped] = self._ordinary[(token[swapped] * len(self._ordinary)).astype(np.int64)]
        return inputs, np.where(hidden, ids, IGNORE_INDEX)


def _uniform(key: np.uint64, numbers: Ids, time: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), (rows, time)."""
    rows = mix64(numbers.astype(np.uint64) + key)
    bits = mix64(rows[:, None] + np.arange(time, dtype=np.uint64) * _GOLDEN_GAMMA)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


class MaskedTokenBatches:
    """Windows in a keyed order, similar lengths together; each epoch hides other tokens of them.

    What is hidden depends on the seed and the sample number only: no micro-batch, rank or resumption changes it.
    A batch holds `input_ids`, `labels` (-100 where nothing is hidden) and, where lengths differ, `mask`.
    """

    def __init__(self, windows: TextWindows, masking: Masking, *, batch_size: int, seed: int) -> None:
        self._windows, self._masking = windows, masking
        self._order = LengthGroupedOrder(windows.lengths, batch_size=batch_size, seed=seed)

    def batch(self, sample_numbers: Ids) -> dict[str, Tensor]:
        """The samples of these numbers, padded on the right."""
        return masked_batch(self._windows, self._masking, self._order.locate(sample_numbers), sample_numbers)


class HeldOutMasks:
    """Windows in the order of their length, always with the same tokens hidden; sample numbers run once over them."""

    def __init__(self, windows: TextWindows, masking: Masking, rows: Ids | None = None) -> None:
        """Take the windows `rows` (default: all)."""
        chosen = np.arange(len(windows)) if rows is None else rows
        self._windows, self._masking = windows, masking
        self.rows = chosen[np.argsort(windows.lengths[chosen], kind="stable")]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, sample_numbers: Ids) -> dict[str, Tensor]:
        """The samples of these numbers, padded on the right."""
        rows = self.rows[sample_numbers]
        return masked_batch(self._windows, self._masking, rows, rows)


def masked_batch(windows: TextWindows, masking: Masking, rows: Ids, numbers: Ids) -> dict[str, Tensor]:
    """The windows `rows` as tensors, hidden by `numbers`. Without padding there is no mask: that is quicker."""
    import torch

    ids, real = windows.padded(rows)
    inputs, labels = masking.hide(ids, real, numbers)
    batch = {"input_ids": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)}
    return batch if real.all() else {**batch, "mask": torch.from_numpy(real)}
