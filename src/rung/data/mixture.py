"""Two texts read in one order that is computed, not stored: some rows of every batch come from older text.

Replay is what keeps a network that learns from new text from forgetting the old one (Robins 1995; for language models
Ibrahim et al. 2024, arXiv 2403.08763, section 4.2). Which rows are old depends on the sample number alone, so resuming,
more ranks or another micro-batch see the same batches, and each text is still read exactly once an epoch of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rung.data.lanes import LaneTokens
from rung.data.pack import PackedTokens
from rung.data.shards import TokenShards
from rung.errors import DataError

if TYPE_CHECKING:
    import torch

_Part = tuple[NDArray[np.int64], "dict[str, torch.Tensor]"]  # rows of the batch, and what stands there
FINEST_SHARE = 10_000
"""Shares are kept as fractions with denominators up to this: sample numbers are then exact at any size."""


class Samples(Protocol):
    """Batches by sample number."""

    def batch(self, sample_numbers: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """The samples of these numbers as tensors of shape (batch, ...)."""
        ...


class Interleaved:
    """Samples of `main`, and for a share of all numbers samples of `other`, spread as evenly as whole rows allow.

    Number s is the sample floor(s x share) of `other` where that number grows from s to s + 1, and else the sample
    s - floor(s x share) of `main`: each source is counted through without a gap.
    """

    def __init__(self, main: Samples, other: Samples, share: Fraction) -> None:
        """`share` of the samples, 0 < share < 1, come from `other`; both give tensors of the same names and shapes."""
        if not 0 < share < 1:
            raise ValueError(f"a share must lie between 0 and 1, not {share}")
        self._main, self._other, self._share = main, other, share

    def batch(self, sample_numbers: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """The rows of both sources at the places of their numbers."""
        numbers = np.asarray(sample_numbers, dtype=np.int64)
        of_other = numbers * self._share.numerator // self._share.denominator
        is_other = (numbers + 1) * self._share.numerator // self._share.denominator > of_other
        parts = [
            (np.flatnonzero(~is_other), self._main, numbers - of_other),
            (np.flatnonzero(is_other), self._other, of_other),
        ]
        return _assembled([(rows, source.batch(own[rows])) for rows, source, own in parts if len(rows)], len(numbers))


class MixedLanes:
    """Text read in lanes (see `rung.data.lanes`) of which some belong to other texts; all keep their text for good."""

    def __init__(self, sources: Sequence[LaneTokens]) -> None:
        """The lanes of `sources` (of equal length), those of the later ones spread evenly among those of the first."""
        counts = [source.lanes for source in sources]
        self._sources, self._lanes = sources, sum(counts)
        # Evenly spread: lane i of n of a source stands at (i + 1/2) / n of the way.
        places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
        owners = np.repeat(np.arange(len(counts)), counts)
        order = np.lexsort((owners, places))
        self._owners = owners[order]
        self._local = np.concatenate([np.arange(count) for count in counts])[order]

    def batch(self, sample_numbers: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """As `LaneTokens.batch`; `lanes` counts the lanes of all sources together."""
        import torch

        numbers = np.asarray(sample_numbers, dtype=np.int64)
        windows, lanes = np.divmod(numbers, self._lanes)
        parts = []
        for index, source in enumerate(self._sources):
            rows = np.flatnonzero(self._owners[lanes] == index)
            if len(rows):
                parts.append((rows, source.batch(windows[rows] * source.lanes + self._local[lanes[rows]])))
        return _assembled(parts, len(numbers)) | {"lanes": torch.from_numpy(lanes)}


def exact_share(share: float) -> Fraction:
    """`share` as the fraction that decides which samples are old."""
    return Fraction(share).limit_denominator(FINEST_SHARE)


def replayed_windows(
    new: TokenShards, old: Sequence[TokenShards], share: Fraction, *, context_length: int, seed: int
) -> Samples:
    """Windows of `new`, and for `share` of the rows windows of `old`: of several texts each by its length."""
    sources = [PackedTokens(text, context_length=context_length, seed=seed) for text in old]
    replayed: Samples = sources[0]
    windows = sources[0].num_windows
    for source in sources[1:]:
        windows += source.num_windows
        replayed = Interleaved(replayed, source, Fraction(source.num_windows, windows))
    return Interleaved(PackedTokens(new, context_length=context_length, seed=seed), replayed, share)


def replayed_lanes(
    new: TokenShards, old: Sequence[TokenShards], share: Fraction, *, lanes: int, length: int, seed: int
) -> MixedLanes:
    """Lanes of `new`, and nearest to `share` of all `lanes` whole lanes of `old`: of several texts each by its length.

    Raises DataError when there are too few lanes for every text to have one.
    """
    wanted = max(len(old), round(lanes * share))
    if wanted >= lanes:
        raise DataError(
            f"{lanes} sequences a step are too few to read the new text and {len(old)} old one(s) side by side",
            hint="replay nothing (--replay 0), or carry on from a run with a larger training.batch_size",
        )
    counts = _allotted(wanted, [text.num_tokens for text in old])
    return MixedLanes(
        [
            LaneTokens(text, lanes=count, length=length, seed=seed)
            for text, count in zip([new, *old], [lanes - wanted, *counts], strict=True)
        ]
    )


def _allotted(total: int, sizes: Sequence[int]) -> list[int]:
    """`total` (>= len(sizes)) as one for each size, and each further one to the size that has least for its length."""
    counts = [1] * len(sizes)
    for _ in range(total - len(sizes)):
        neediest = max(range(len(sizes)), key=lambda index: (sizes[index] / counts[index], -index))
        counts[neediest] += 1
    return counts


def _assembled(
    parts: Sequence[tuple[NDArray[np.int64], dict[str, torch.Tensor]]], rows: int
) -> dict[str, torch.Tensor]:
    """One batch of `rows` rows from (where, which) of each source."""
    import torch

    first = parts[0][1]
    whole = {name: torch.empty((rows, *tensor.shape[1:]), dtype=tensor.dtype) for name, tensor in first.items()}
    for places, batch in parts:
        for name, tensor in batch.items():
            whole[name][torch.from_numpy(places)] = tensor
    return whole
