"""Which words stand near which, counted over a text of any size in bounded memory.

A pair of words d places apart in a line counts 1/d, to both sides (Pennington et al. 2014, section 4.2). Counting is
in whole numbers, 1/d as a fraction of a common denominator: so neither the number of threads nor the limit of memory
changes a single bit of the result.

Pairs go to a table in memory; a full table is emptied into files by a hash of the pair, and each file is added up by
itself in the end. What is in one file is a random part of all pairs and is stored in random order, so that the whole
is shuffled, as training by single pairs needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from rung.errors import DataError
from rung.progress import SILENT, Progress
from rung.runfolder import readable_write_errors

Stream = NDArray[np.int32]

_FREQUENT = 1024
"""Pairs among so many of the commonest words are counted in a square (8 MiB a thread): most pairs of a text are."""
_FILES = 64
_FULLEST = 0.6
"""Of the places of a hash table: beyond it, searches become long."""
_PLACE_BYTES = 16
_LEAST_PLACES = 1 << 12
_LARGEST_DENOMINATOR = 1 << 32
_STREAM_PART = 1 << 18
_PAIR = np.dtype([("key", "<u8"), ("value", "<i8")])


@dataclass(frozen=True)
class Cooccurrences:
    """Pairs of words in random order: `first` <= `second` (pairs,) int32, `counts` (pairs,) float32, both ways alike.

    The arrays are memory maps of files.
    """

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    counts: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.counts)


def count_cooccurrences(
    stream: Stream,
    vocab_size: int,
    *,
    window: int,
    folder: Path,
    memory_bytes: int = 1 << 29,
    threads: int = 1,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Cooccurrences:
    """Count the pairs of `stream` (numbers of words, the commonest smallest; negative ones end a line).

    Files are made in the existing `folder` and stay there; `open_cooccurrences` opens them again. `memory_bytes`
    bounds the tables. The order of the result depends on `seed` only.

    Raises DataError when there is no pair, RunFolderError when the disk is full.
    """
    text = _Text(stream, vocab_size, window)
    with readable_write_errors(folder):
        spilled = _Spilled(folder)
        try:
            _count(text, spilled, memory_bytes, threads, progress)
            _add_up(text, spilled, folder, seed, progress)
        finally:
            spilled.remove()
    found = open_cooccurrences(folder)
    if not len(found):
        raise DataError("no two words of the vocabulary stand near each other", hint="give running text")
    return found


def open_cooccurrences(folder: Path) -> Cooccurrences:
    """Map what `count_cooccurrences` left in `folder`."""
    first, second, counts = (
        np.memmap(folder / name, dtype, mode="r") if (folder / name).stat().st_size else np.empty(0, dtype)
        for name, dtype in _RESULT.items()
    )
    return Cooccurrences(first, second, counts)


_RESULT = {"first.bin": "<i4", "second.bin": "<i4", "counts.bin": "<f4"}


class _Text:
    """What is counted, and what a pair counts: `shares[d - 1]` / `denominator` at distance d."""

    def __init__(self, stream: Stream, vocab_size: int, window: int) -> None:
        self.stream, self.vocab_size = stream, vocab_size
        self.denominator = min(math.lcm(*range(1, window + 1)), _LARGEST_DENOMINATOR)
        self.shares = np.array([round(self.denominator / distance) for distance in range(1, window + 1)], np.int64)


class _Spilled:
    """Files of pairs, each holding those whose hash it is; several threads may add."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / f"pairs-{number}.bin" for number in range(_FILES)]
        for path in self._paths:
            path.write_bytes(b"")
        self._lock = Lock()

    def add(self, keys: NDArray[np.uint64], values: NDArray[np.int64]) -> None:
        # Other bits of the same product than the hash table's, which begins with the highest.
        numbers = ((keys * np.uint64(0x9E37_79B9_7F4A_7C15)) >> np.uint64(20)).astype(np.uint8) % _FILES
        order = np.argsort(numbers, kind="stable")
        pairs = np.empty(len(keys), _PAIR)
        pairs["key"], pairs["value"] = keys[order], values[order]
        ends = np.cumsum(np.bincount(numbers, minlength=_FILES))
        with self._lock:
            for path, part in zip(self._paths, np.split(pairs, ends[:-1]), strict=True):
                with path.open("ab") as file:
                    part.tofile(file)

    def files(self) -> Iterator[NDArray[np.void]]:
        for path in self._paths:
            yield np.fromfile(path, _PAIR)

    def remove(self) -> None:
        for path in self._paths:
            path.unlink(missing_ok=True)


def _count(text: _Text, spilled: _Spilled, memory_bytes: int, threads: int, progress: Progress) -> None:
    """Count parts of the stream side by side, each thread with tables of its own."""
    length = len(text.stream)
    parts = iter(range(0, length, _STREAM_PART))
    lock = Lock()
    places = _table_places(length, len(text.shares), memory_bytes // threads)
    with progress.task("counting neighbours", length, "words") as advance, ThreadPoolExecutor(threads) as pool:

        def next_part() -> int | None:
            with lock:
                start = next(parts, None)
            if start is not None:
                advance(min(_STREAM_PART, length - start))
            return start

        futures = [pool.submit(_count_parts, text, spilled, places, next_part) for _ in range(threads)]
        for future in futures:
            future.result()


def _table_places(words: int, window: int, memory_bytes: int) -> int:
    """A power of two: places for all pairs there can be, or for what `memory_bytes` hold."""
    wanted = words * window / _FULLEST
    affordable = 1 << max(0, (memory_bytes // _PLACE_BYTES).bit_length() - 1)
    needed = 1 << math.ceil(math.log2(max(wanted, 1)))
    least = max(_LEAST_PLACES, 1 << math.ceil(math.log2(2 * window / _FULLEST)))  # room for one word's pairs at least
    return max(least, min(affordable, needed))


def _count_parts(text: _Text, spilled: _Spilled, places: int, next_part: Callable[[], int | None]) -> None:
    from rung.training.glove.kernels import NO_PAIR, count_pairs

    stream, size = text.stream, text.vocab_size
    keys = np.full(places, NO_PAIR)
    values = np.zeros(places, np.int64)
    square = min(_FREQUENT, size)
    frequent = np.zeros((square, square), np.int64)
    held, most = 0, int(_FULLEST * places)
    while (start := next_part()) is not None:
        end = min(start + _STREAM_PART, len(stream))
        while start < end:
            start, held = count_pairs(stream, start, end, text.shares, size, frequent, keys, values, held, most)
            if start < end:
                _empty(keys, values, spilled)
                held = 0
    _empty(keys, values, spilled)
    low, high = np.nonzero(frequent)
    spilled.add((low * size + high).astype(np.uint64), frequent[low, high])


def _empty(keys: NDArray[np.uint64], values: NDArray[np.int64], spilled: _Spilled) -> None:
    from rung.training.glove.kernels import NO_PAIR

    filled = np.flatnonzero(keys != NO_PAIR)
    spilled.add(keys[filled], values[filled])
    keys[filled] = NO_PAIR
    values[filled] = 0


def _add_up(text: _Text, spilled: _Spilled, folder: Path, seed: int, progress: Progress) -> None:
    """Add up each file of pairs and append it, shuffled, to the result."""
    random = np.random.Generator(np.random.Philox(seed))
    with (
        progress.task("adding up neighbours", _FILES, "files") as advance,
        (folder / "first.bin").open("wb") as firsts,
        (folder / "second.bin").open("wb") as seconds,
        (folder / "counts.bin").open("wb") as counts,
    ):
        for pairs in spilled.files():
            keys, values = _summed(pairs)
            order = random.permutation(len(keys))
            first, second = np.divmod(keys[order], np.uint64(text.vocab_size))
            # A word beside itself is met from both sides, in one cell.
            total = values[order] * np.where(first == second, 2, 1)
            first.astype("<i4").tofile(firsts)
            second.astype("<i4").tofile(seconds)
            (total / text.denominator).astype("<f4").tofile(counts)
            advance(1)


def _summed(pairs: NDArray[np.void]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Distinct keys, ascending, and the sum of the values of each."""
    order = np.argsort(pairs["key"], kind="stable")
    keys, values = pairs["key"][order], pairs["value"][order]
    is_first = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    starts = np.flatnonzero(is_first)
    sums: NDArray[np.int64] = np.add.reduceat(values, starts) if len(starts) else values
    return keys[starts], sums
