"""Raw text without what is held out for measuring: lines that spell a validation or test text are cut from documents.

Words are compared as everywhere in Rung (`rung.data.similar_items`): case, punctuation and white space make no
difference, and a held-out text is found across the ends of lines too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from rung.data.documents import documents_at_once
from rung.data.hashing import UInts
from rung.data.near_duplicates import word_hashes, word_runs
from rung.data.similar_items import is_among, normalised

FEWEST_WORDS = 4
"""Shorter texts ("Thank you!") are not looked for: they recur everywhere and give nothing away."""
_BEGINNING = 8
"""Words by which longer texts are found, before all of their words are compared: they hardly recur by chance."""
_CHARACTERS_AT_ONCE = 1 << 22

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass
class Kept:
    """Documents without what is held out, and how much that was."""

    documents: list[str] = field(default_factory=list)
    lines_dropped: int = 0
    documents_cut: int = 0


def without_held_out(documents: Iterable[str], held_out: Sequence[str]) -> Kept:
    """Cut every line from `documents` that holds some of a held-out text; what stood around it are documents apart."""
    kept, wanted = Kept(), _Wanted(held_out)
    for some in documents_at_once(documents, _CHARACTERS_AT_ONCE):
        parts = [text.splitlines(keepends=True) for text in some]
        lines = [line for part in parts for line in part]
        owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        dropped = wanted.lines(lines, owners)
        for number, group in groupby(
            zip(owners.tolist(), lines, dropped.tolist(), strict=True), key=lambda row: row[0]
        ):
            rows = list(group)
            count = sum(is_dropped for _, _, is_dropped in rows)
            kept.lines_dropped += count
            kept.documents_cut += count > 0
            kept.documents += _around(rows) if count else [some[number]]
    return kept


def _around(rows: list[tuple[int, str, bool]]) -> list[str]:
    """The stretches of lines between those that are dropped."""
    stretches = ("".join(line for _, line, _ in run) for gone, run in groupby(rows, key=lambda row: row[2]) if not gone)
    return [text for text in stretches if text.strip()]


class _Wanted:
    """Texts to look for, by the words that they begin with."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._words, self._counts = _words(sorted(set(texts)))
        self._starts = np.cumsum(self._counts) - self._counts
        self._by_beginning: dict[int, tuple[UInts, Ints]] = {}
        for length in range(FEWEST_WORDS, _BEGINNING + 1):
            chosen = np.flatnonzero(self._counts >= length if length == _BEGINNING else self._counts == length)
            first = self._words[self._starts[chosen, None] + np.arange(length)]
            hashes, _ = word_runs(first.ravel(), np.full(len(chosen), length), length)
            order = np.argsort(hashes, kind="stable")
            self._by_beginning[length] = hashes[order], chosen[order]

    def lines(self, lines: list[str], owners: Ints) -> Flags:
        """(lines,) which of them hold words of a text that stands in their document `owners` (lines,)."""
        words, counts = _words(lines)
        line_of = np.repeat(np.arange(len(lines)), counts)
        owner_of = owners[line_of]
        by_document = np.bincount(owners, weights=counts, minlength=int(owners.max(initial=-1)) + 1).astype(np.int64)
        found = np.zeros(len(lines), np.bool_)
        for length, (beginnings, texts) in self._by_beginning.items():
            places = np.arange(max(len(words) - length + 1, 0))
            places = places[owner_of[places] == owner_of[places + length - 1]]
            runs, _ = word_runs(words, by_document, length)
            hits = np.flatnonzero(is_among(runs, beginnings))
            first = np.searchsorted(beginnings, runs[hits], side="left").tolist()
            last = np.searchsorted(beginnings, runs[hits], side="right").tolist()
            for place, low, high in zip(places[hits].tolist(), first, last, strict=True):
                for text in texts[low:high].tolist():
                    end = place + int(self._counts[text])
                    begin = int(self._starts[text])
                    theirs = self._words[begin : begin + end - place]
                    if (
                        end <= len(words)
                        and owner_of[end - 1] == owner_of[place]
                        and np.array_equal(words[place:end], theirs)
                    ):
                        found[line_of[place] : line_of[end - 1] + 1] = True
        return found


def _words(texts: Sequence[str]) -> tuple[UInts, Ints]:
    """Hashes of all words, and how many each text has."""
    encoded = [normalised(text).encode("utf-8", "replace") for text in texts]
    return word_hashes(b"".join(encoded), np.cumsum([0, *map(len, encoded)], dtype=np.int64))
