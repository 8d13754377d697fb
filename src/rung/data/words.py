"""Byte-level BPE, one distinct word at a time.

The library cuts every text with a regex and merges every word anew. But a language repeats itself: 21 MB of novels
hold 4.8 million words and 80,000 different ones. So the words are found with Python's `re`, each distinct one is
encoded once by the library, and the ids of a text are gathered from that table. The ids are the same, and one core
does this several times faster than the library does on two (figures in LOG.md).

Python's `re` knows no character properties. The classes are spelled out from `unicodedata`, and a text with a character
that Unicode versions may disagree about (unassigned, or a letter beyond the basic plane) is left to the library.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np

_MOST_WORDS = 1 << 18
_MOST_CHARACTERS = 1 << 24
"""Beyond either the table starts anew: about 60 MB."""

_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Unicode's White_Space

Ragged = tuple[np.ndarray, np.ndarray]
"""Token ids of several texts one after the other (uint32), and how many each text has (int64)."""


class WordTable:
    """Encodes texts word by word; threads may share it."""

    def __init__(
        self,
        encode_words: Callable[[Sequence[str]], Ragged],
        find_words: Callable[[str], list[str]] | None = None,
    ) -> None:
        """`encode_words` gives the ids of each word; `find_words` cuts a text into words (default: as our BPE)."""
        self._encode_words, self._find_words = encode_words, find_words
        self._lock = threading.Lock()
        self._clear()

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Token ids of `texts`, all of which must satisfy `is_plain` where the default `find_words` is used."""
        with self._lock:
            try:
                return self._gather(self._number_words(texts))
            except BaseException:  # an interrupt may leave words that are numbered and have no ids
                self._clear()
                raise

    def _number_words(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The numbers of the words of each text, after learning the ids of the new ones."""
        if len(self._numbers) > _MOST_WORDS or self._characters > _MOST_CHARACTERS:
            self._clear()
        find_words, number_of = self._find_words or _words_pattern().findall, self._numbers.__getitem__
        numbers = []
        for text in texts:
            words = find_words(text)
            numbers.append(np.fromiter(map(number_of, words), np.int64, len(words)))
        self._learn(self._numbers.take_new())
        return numbers

    def _clear(self) -> None:
        self._numbers = _Numbers()
        self._ids = np.empty(0, np.uint32)
        self._counts = np.empty(0, np.int64)
        self._characters = 0

    def _learn(self, words: list[str]) -> None:
        if not words:
            return
        ids, counts = self._encode_words(words)
        self._ids = np.concatenate([self._ids, ids])
        self._counts = np.concatenate([self._counts, counts])
        self._characters += sum(map(len, words))

    def _gather(self, numbers: list[np.ndarray]) -> Ragged:
        """Lay the ids of numbered words one after the other."""
        flat = np.concatenate([np.empty(0, np.int64), *numbers])
        counts = self._counts[flat]
        ends = np.cumsum(counts)
        starts = np.cumsum(self._counts) - self._counts
        places = np.repeat(starts[flat] - (ends - counts), counts) + np.arange(counts.sum())
        word_ends = np.cumsum(np.fromiter(map(len, numbers), np.int64, len(numbers)))
        text_ends = np.concatenate([np.zeros(1, np.int64), ends])[word_ends]
        return self._ids[places], np.diff(text_ends, prepend=0)


class _Numbers(dict[str, int]):
    """Numbers words in the order they are first met."""

    def __init__(self) -> None:
        super().__init__()
        self._new: list[str] = []

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        self._new.append(word)
        return number

    def take_new(self) -> list[str]:
        new, self._new = self._new, []
        return new


def count_words(texts: Iterable[str], split: Callable[[str], list[str]]) -> Counter[str]:
    """How often each word occurs in `texts`; `split` is the library's, for texts that are not plain.

    Memory grows with the distinct words: 100 MB of English novels have about 400,000, some 40 MB.
    """
    counts: Counter[str] = Counter()
    find_words = _words_pattern().findall
    for text in texts:
        counts.update(find_words(text) if is_plain(text) else split(text))
    return counts


def is_plain(text: str) -> bool:
    """True when every Unicode version agrees which characters of `text` are letters, numbers or neither."""
    if text.isascii():
        return True
    unsure = set(_unsure_pattern().findall(text))
    return all(unicodedata.category(character)[0] in "SPM" for character in unsure)


@cache
def _words_pattern() -> re.Pattern[str]:
    """`rung.data.byte_level.PRETOKENIZER_REGEX` in the language of Python's `re`, for plain texts.

    U+017F, the long s, is the one character that matches a letter of the contractions only when case is ignored.
    """
    letter, number = _class_of("L"), _class_of("N")
    return re.compile(
        rf"'(?:[sSſtTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])|[^\r\n{letter}{number}]?[{letter}]+|[{number}]"
        rf"| ?[^{_SPACE}{letter}{number}]+[\r\n]*|[{_SPACE}]*[\r\n]+|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
    )


@cache
def _unsure_pattern() -> re.Pattern[str]:
    return re.compile(rf"[{_class_of('Cn')}{_class_of('Cs')}\U00010000-\U0010ffff]")


def _class_of(category: str) -> str:
    """The characters of the basic plane whose category begins with `category`, as ranges for a character class."""
    members = [code for code in range(0x10000) if unicodedata.category(chr(code)).startswith(category)]
    breaks = np.flatnonzero(np.diff(members) != 1) + 1
    return "".join(f"\\u{run[0]:04x}-\\u{run[-1]:04x}" for run in np.split(np.array(members), breaks))
