"""The order of training samples: a permutation that is computed, not stored.

Sample number s belongs to epoch s // n and is the window `permutation(s % n)` of that epoch. So the whole state of the
data order is one integer, and resuming, more ranks or another micro-batch see the same global batches.

Up to 16,384 windows the permutation sorts keyed hashes of the windows: every order is equally likely. Beyond, where a
table would grow with the text, it is a Feistel network over the smallest power of two that holds n, with cycle walking:
a number that falls outside [0, n) is sent through again until it falls inside (Black and Rogaway 2002, "Ciphers with
arbitrary finite domains", section 4). Both steps are bijective for every round function, so the quality of the mixing
can never cost a sample. For a handful of windows eight rounds are measurably not random: hence the table.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

from rung.data.hashing import mix64

_LARGEST_TABLE = 1 << 14
_ROUNDS = 8
_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # the step of SplitMix64 (Steele et al. 2014)


def keyed_integers(purpose: str, seed: int, epoch: int, count: int) -> list[int]:
    """`count` pseudo-random integers below 2**64 that depend on nothing but the arguments.

    They are the SHA-256 of the line "rung <purpose> <seed> <epoch> <number>", its first 8 bytes in little-endian order.
    """
    return [
        int.from_bytes(hashlib.sha256(f"rung {purpose} {seed} {epoch} {number}".encode()).digest()[:8], "little")
        for number in range(count)
    ]


class SampleOrder:
    """Which window of which epoch each sample number is, for `num_windows` windows an epoch."""

    def __init__(self, num_windows: int, seed: int) -> None:
        self.num_windows = num_windows
        self.seed = seed

    def locate(self, sample_numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and windows of `sample_numbers` (int64, any shape, >= 0); both int64 of the same shape."""
        epochs, places = np.divmod(sample_numbers.astype(np.int64, copy=False), self.num_windows)
        windows = np.empty_like(places)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            windows[chosen] = _permute(places[chosen], self.num_windows, self.seed, int(epoch))
        return epochs, windows


def _permute(places: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """Send each of `places` (int64 in [0, size)) to another number in [0, size), one to one."""
    if size <= _LARGEST_TABLE:
        return np.take(_table(size, seed, epoch), places)
    return _walk(places, size, _round_keys(seed, epoch))


@lru_cache(maxsize=16)
def _table(size: int, seed: int, epoch: int) -> np.ndarray:
    key = np.uint64(keyed_integers("order", seed, epoch, 1)[0])
    return np.argsort(mix64(key + np.arange(size, dtype=np.uint64) * _GOLDEN_GAMMA), kind="stable")


@lru_cache(maxsize=16)
def _round_keys(seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(keyed_integers("order", seed, epoch, _ROUNDS))


def _walk(places: np.ndarray, size: int, keys: tuple[int, ...]) -> np.ndarray:
    """The Feistel network with cycle walking."""
    bits = (size - 1).bit_length()
    result = _feistel(places.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(result >= size)
    while outside.size:  # the domain is below 2 * size, so each walk takes under two steps on average
        walked = _feistel(result[outside], bits, keys)
        result[outside] = walked
        outside = outside[walked >= size]
    return result.astype(np.int64)


def _feistel(values: np.ndarray, bits: int, keys: tuple[int, ...]) -> np.ndarray:
    """Permute the numbers of `bits` bits (uint64 array).

    The halves differ by at most one bit; odd and even rounds change one half each by a hash of the other.
    """
    low_bits = bits // 2
    low_mask = np.uint64((1 << low_bits) - 1)
    high_mask = np.uint64((1 << (bits - low_bits)) - 1)
    low, high = values & low_mask, values >> np.uint64(low_bits)
    for number, key in enumerate(keys):
        if number % 2:
            low = low ^ (mix64(high + np.uint64(key)) & low_mask)
        else:
            high = high ^ (mix64(low + np.uint64(key)) & high_mask)
    return (high << np.uint64(low_bits)) | low
