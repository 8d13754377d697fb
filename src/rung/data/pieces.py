"""Where to cut: content-defined borders, so that an edit moves only the borders near it.

Among the borders that would give a piece of an allowed length, the one whose neighbourhood hashes lowest is taken.
Two versions of a text that differ early choose from overlapping windows, soon take the same border, and agree from
there on (the idea of content-defined chunking: Muthitacharoen et al., LBFS, SOSP 2001).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

import numpy as np
import numpy.typing as npt

from rung.data.hashing import mix64

_CHUNK = 1 << 18
_CONTEXT = 32  # bytes before a border that decide its rank
_NEWLINE, _SPACE, _TAB, _RETURN = b"\n \t\r"
_WEAK = np.uint64(1 << 63)  # set in the rank of a single newline: blank lines are preferred


def cut_points(text: bytes, minimum: int, maximum: int) -> list[int]:
    """Return the ends of the pieces of `text`, each `minimum` to `maximum` bytes long (a shorter text is one piece).

    A piece ends behind a blank line where there is one, else behind a newline, else behind white space, else between
    two code points. The last piece is at least `minimum` long as well. Needs maximum >= 2 * minimum >= 8.
    """
    if len(text) <= maximum:
        return [len(text)] if text else []
    data = np.frombuffer(text, dtype=np.uint8)
    borders, ranks = _paragraph_borders(data)
    ends: list[int] = []
    start = 0
    while len(text) - start > maximum:
        low, high = start + minimum, min(start + maximum, len(text) - minimum)
        first, last = bisect_left(borders, low), bisect_right(borders, high)
        if first < last:
            window = ranks[first:last]
            start = borders[first + window.index(min(window))]
        else:
            start = _border_in_monster_line(data, low, high)
        ends.append(start)
    ends.append(len(text))
    return ends


def lowest_rank_cuts(sizes: list[int], ranks: list[int], minimum: int, maximum: int) -> list[int]:
    """Group consecutive items into runs of `minimum` to `maximum` total size; return the end index of each run.

    The same rule as `cut_points`, for whole items (files, passages). An item larger than `maximum` ends its run.
    """
    ends: list[int] = []
    start = 0
    while start < len(sizes):
        total, best, best_rank = 0, 0, 0
        for index in range(start, len(sizes)):
            total += sizes[index]
            if total > maximum and index > start:
                best = best or index
                break
            if total >= minimum and (not best or ranks[index] < best_rank):
                best, best_rank = index + 1, ranks[index]
        else:
            best = len(sizes)
        ends.append(best)
        start = best
    return ends


def newlines(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Positions of newlines. In chunks: a comparison of all at once would touch as much new memory as the text has."""
    starts = range(0, len(data), _CHUNK)
    found = [np.flatnonzero(data[start : start + _CHUNK] == _NEWLINE) + start for start in starts]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _paragraph_borders(data: npt.NDArray[np.uint8]) -> tuple[list[int], list[int]]:
    """Positions behind newlines, in order, and the rank of each: blank lines before single newlines, then by hash."""
    positions = newlines(data) + 1
    positions = positions[(positions >= _CONTEXT) & (positions < data.size)]
    positions = positions[data[positions] != _NEWLINE]  # a run of newlines ends once
    ranks = _rank(data, positions) >> np.uint64(1)
    ranks[data[positions - 2] != _NEWLINE] |= _WEAK
    return positions.tolist(), ranks.tolist()


def _rank(data: npt.NDArray[np.uint8], positions: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    eights = np.ndarray(len(data) - 7, np.uint64, data, strides=(1,))  # the eight bytes from each place on
    ranks = np.zeros(len(positions), dtype=np.uint64)
    for back in range(_CONTEXT, 0, -8):
        ranks = mix64(ranks ^ eights[positions - back])
    return ranks


def _border_in_monster_line(data: npt.NDArray[np.uint8], low: int, high: int) -> int:
    """A border in a stretch without newlines: behind white space, or else between two code points."""
    window = data[low - 1 : high]
    blank = (window == _SPACE) | (window == _TAB) | ((window == _RETURN) & (data[low : high + 1] != _NEWLINE))
    positions = np.flatnonzero(blank) + low
    positions = positions[positions >= _CONTEXT]
    if positions.size:
        return int(positions[np.argmin(_rank(data, positions))])
    cut = high
    while cut > low and data[cut] & 0xC0 == 0x80:  # a continuation byte: step back to the start of its code point
        cut -= 1
    return cut
