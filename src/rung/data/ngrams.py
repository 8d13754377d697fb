"""Words and word n-grams of many texts as arrays of numbers.

Texts are lower-cased. A word is a maximal run of characters other than white space and punctuation, or one punctuation
mark. In texts whose punctuation stands apart already, like those of Wang and Manning (2012), these are the tokens that
white space parts, but for contractions; in raw ones "good", "good," and "good." become one word, which on IMDB's
reviews is worth a point of validation accuracy to logistic regression. An n-gram is a run of n words of one text.

An n-gram needs no string: its key is (number of its first n - 1 words as an n-gram) x (number of words) + its last
word, so that n-grams are found by one binary search an order and no two of them ever share a column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rung.data.hashing import mix64

Ints = NDArray[np.int64]
UNKNOWN = -1
# ASCII's, Latin-1's, Arabic and Devanagari stops, general, CJK and full-width. Not all that is no letter: in many
# scripts vowel signs are none.
MARKS = (
    r"!-/:-@\[-`{-~\u00a1-\u00bf\u060c\u061b\u061f\u06d4\u0964\u0965"
    r"\u2010-\u2027\u2030-\u205e\u3001-\u303f\uff01-\uff0f\uff1a-\uff20"
)
_WORD = re.compile(rf"[^\s{MARKS}]+|[{MARKS}]")
_HASH_FACTOR = np.uint64(116049371)  # fastText's, in `Dictionary::addWordNgrams`
_CHUNK_CHARACTERS = 1 << 23  # of text cut into words at a time: about 200 MB of Python strings


class Ragged(NamedTuple):
    """Several rows of integers one after the other: `values` (total,), and how many each row has, `lengths` (rows,)."""

    values: Ints
    lengths: Ints

    @property
    def rows(self) -> Ints:
        """(total,) the row of each value."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


class Counts(NamedTuple):
    """How often each feature occurs in each row: `columns` ascending within a row, `counts` (total,), `lengths`."""

    columns: Ints
    counts: Ints
    lengths: Ints


class WordNumbers:
    """The numbers of known words; every other word is `UNKNOWN`."""

    def __init__(self, words: Sequence[str]) -> None:
        self._numbers = {word: number for number, word in enumerate(words)}

    def __call__(self, texts: Sequence[str]) -> Ragged:
        """The number of each word of `texts`, a row a text."""
        parts = [self._chunk(texts[start:stop]) for start, stop in _chunks(texts)]
        empty = np.empty(0, np.int64)
        return Ragged(
            np.concatenate([empty, *(part.values for part in parts)]),
            np.concatenate([empty, *(part.lengths for part in parts)]),
        )

    def _chunk(self, texts: Sequence[str]) -> Ragged:
        words = [words_of(text) for text in texts]
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        numbers = map(self._numbers.get, chain.from_iterable(words), repeat(UNKNOWN))
        return Ragged(np.fromiter(numbers, np.int64, int(lengths.sum())), lengths)


def words_of(text: str) -> list[str]:
    """The words of a text, lower-cased, punctuation marks one by one."""
    return _WORD.findall(text.lower())


def distinct_words(texts: Sequence[str]) -> list[str]:
    """All words of `texts` in order of their code points."""
    found: set[str] = set()
    for start, stop in _chunks(texts):
        for text in texts[start:stop]:
            found.update(words_of(text))
    return sorted(found)


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Runs (start, stop) of texts of about `_CHUNK_CHARACTERS` together."""
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK_CHARACTERS, side="right")))
        yield start, stop
        start = stop


def follows(lengths: Ints, order: int) -> NDArray[np.bool_]:
    """(total,) whether the word at a place has `order` - 1 words of its own row before it."""
    starts = np.cumsum(lengths) - lengths
    places = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
    return places >= order - 1


@dataclass(frozen=True)
class NgramVocabulary:
    """Exact features: each word has a column, then each known n-gram of 2 words, of 3 ... words.

    `words` in the order of their columns; `keys[i]` (n-grams of order i + 2,) ascending. Every n-gram of an order has
    its first words, one fewer, among the order below.
    """

    words: tuple[str, ...]
    keys: tuple[Ints, ...]

    @classmethod
    def learn(cls, texts: Sequence[str], order: int) -> NgramVocabulary:
        """All n-grams of up to `order` words in `texts`; the order of texts does not matter."""
        words = distinct_words(texts)
        vocabulary = cls(tuple(words), ())
        if order == 1:
            return vocabulary
        ragged = WordNumbers(words)(texts)
        found: list[Ints] = []
        numbers = ragged.values
        for size in range(2, order + 1):
            keys = _keys(numbers, ragged.values, len(words))
            complete = follows(ragged.lengths, size)
            distinct, inverse = np.unique(keys[complete], return_inverse=True)
            numbers = np.full(len(keys), UNKNOWN)
            numbers[complete] = inverse
            found.append(distinct)
        return cls(vocabulary.words, tuple(found))

    def __len__(self) -> int:
        """Number of columns."""
        return len(self.words) + sum(map(len, self.keys))

    def take(self, kept: NDArray[np.bool_]) -> NgramVocabulary:
        """Only the columns at which `kept` (columns,) is true. An n-gram goes when its first words or its last do."""
        word_kept, *rest = np.split(kept, np.cumsum([len(self.words), *map(len, self.keys)])[:-1])
        new_words = _renumbered(word_kept)
        new_prefixes, keys = new_words, []
        for known, known_kept in zip(self.keys, rest, strict=True):
            prefixes, words = np.divmod(known, len(self.words))
            alive = known_kept & (new_prefixes[prefixes] != UNKNOWN) & (new_words[words] != UNKNOWN)
            keys.append((new_prefixes[prefixes] * int(word_kept.sum()) + new_words[words])[alive])
            new_prefixes = _renumbered(alive)
        chosen = tuple(word for word, keep in zip(self.words, word_kept.tolist(), strict=True) if keep)
        return NgramVocabulary(chosen, tuple(keys))

    def counter(self) -> NgramCounter:
        """What counts these n-grams in texts."""
        return NgramCounter(self)


class NgramCounter:
    """Counts the n-grams of a vocabulary in texts."""

    def __init__(self, vocabulary: NgramVocabulary) -> None:
        self.vocabulary = vocabulary
        self._numbers = WordNumbers(vocabulary.words)

    def __call__(self, texts: Sequence[str]) -> Counts:
        """How often each known n-gram occurs in each of `texts`."""
        words = self._numbers(texts)
        columns = [words.values]
        numbers, first_column = words.values, len(self.vocabulary.words)
        for size, known in enumerate(self.vocabulary.keys, start=2):
            numbers = _find(known, _keys(numbers, words.values, len(self.vocabulary.words)))
            numbers[~follows(words.lengths, size)] = UNKNOWN
            columns.append(np.where(numbers == UNKNOWN, UNKNOWN, numbers + first_column))
            first_column += len(known)
        every = np.concatenate(columns)
        rows = np.tile(words.rows, len(columns))
        kept = every != UNKNOWN
        return _counted(rows[kept], every[kept], len(texts), max(first_column, 1))


def _keys(prefixes: Ints, words: Ints, num_words: int) -> Ints:
    """(total,) the key of the n-gram that ends at each place, UNKNOWN where the prefix or the word is."""
    keys = np.full(len(words), UNKNOWN)
    keys[1:] = prefixes[:-1] * num_words + words[1:]
    keys[1:][(prefixes[:-1] == UNKNOWN) | (words[1:] == UNKNOWN)] = UNKNOWN
    return keys


def _find(known: Ints, keys: Ints) -> Ints:
    """The place of each of `keys` in the ascending `known`, UNKNOWN where it is not there."""
    if not len(known):
        return np.full(len(keys), UNKNOWN)
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[places] == keys, places, UNKNOWN)


def _renumbered(kept: NDArray[np.bool_]) -> Ints:
    """The new number of each old one when only `kept` stay, UNKNOWN for the others."""
    return np.where(kept, np.cumsum(kept) - 1, UNKNOWN)


def _counted(rows: Ints, columns: Ints, num_rows: int, num_columns: int) -> Counts:
    places, counts = np.unique(rows * num_columns + columns, return_counts=True)
    found_rows, found_columns = np.divmod(places, num_columns)
    return Counts(found_columns, counts.astype(np.int64), np.bincount(found_rows, minlength=num_rows))


@dataclass(frozen=True)
class HashedNgrams:
    """Features of bounded number: each word has a row, and n-grams of 2 to `order` words share rows by a hash.

    As in fastText (Joulin et al. 2017, "Bag of Tricks", section 2.2, and its source): every text ends with one more
    word that stands for its end, n-grams with it included, and an n-gram falls into one of `num_buckets` buckets. But
    only `buckets`, those that occurred in training, ascending, have a row: after the rows of `words` and of the end.
    An n-gram with an unknown word is nothing that training can have seen, so it is dropped whatever its bucket.
    """

    words: tuple[str, ...]
    buckets: Ints
    num_buckets: int
    order: int

    @classmethod
    def learn(cls, texts: Sequence[str], order: int, num_buckets: int) -> HashedNgrams:
        """All words and buckets of `texts`; the order of texts does not matter."""
        words = distinct_words(texts)
        numbers = _with_ends(WordNumbers(words)(texts), len(words))
        hashed = _buckets(numbers, order, num_buckets)
        return cls(tuple(words), np.unique(hashed[hashed != UNKNOWN]), num_buckets, order)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.words) + 1 + len(self.buckets)


class HashedNgramFinder:
    """Finds the rows of the n-grams of texts."""

    def __init__(self, ngrams: HashedNgrams) -> None:
        self._ngrams = ngrams
        self._numbers = WordNumbers(ngrams.words)
        self._row_of_bucket = np.full(ngrams.num_buckets, UNKNOWN, np.int32)
        self._row_of_bucket[ngrams.buckets] = np.arange(len(ngrams.words) + 1, len(ngrams))

    def __call__(self, texts: Sequence[str]) -> Ragged:
        """The rows of all known words and n-grams of each text, repeated ones repeated; none if no word is known."""
        end = len(self._ngrams.words)
        words = _with_ends(self._numbers(texts), end)
        hashed = _buckets(words, self._ngrams.order, self._ngrams.num_buckets)
        found = np.where(hashed == UNKNOWN, UNKNOWN, self._row_of_bucket[hashed])
        every = np.concatenate([words.values[:, None], found], axis=1)
        known = every != UNKNOWN
        before = np.concatenate([[0], np.cumsum(known.sum(axis=1))])
        ends = np.cumsum(words.lengths)
        lengths = before[ends] - before[ends - words.lengths]
        rows = every[known]
        silent = lengths == 1  # the end alone
        return Ragged(rows[np.repeat(~silent, lengths)], np.where(silent, 0, lengths))


def _with_ends(words: Ragged, end: int) -> Ragged:
    """The same rows, each with `end` as its last value."""
    lengths = words.lengths + 1
    values = np.full(int(lengths.sum()), end)
    inside = np.ones(len(values), np.bool_)
    inside[np.cumsum(lengths) - 1] = False
    values[inside] = words.values
    return Ragged(values, lengths)


def _buckets(words: Ragged, order: int, num_buckets: int) -> Ints:
    """(total, order - 1) the buckets of the n-grams of 2 to `order` words that end at each word, else UNKNOWN."""
    numbers = words.values.astype(np.uint64)
    hashes, whole = mix64(numbers), words.values != UNKNOWN
    result = np.full((len(numbers), order - 1), UNKNOWN)
    for size in range(2, order + 1):
        longer, known = np.zeros_like(hashes), np.zeros_like(whole)
        longer[1:] = mix64(hashes[:-1] * _HASH_FACTOR + numbers[1:])
        known[1:] = whole[:-1] & (words.values[1:] != UNKNOWN)
        hashes, whole = longer, known & follows(words.lengths, size)
        result[whole, size - 2] = (hashes[whole] % np.uint64(num_buckets)).astype(np.int64)
    return result
