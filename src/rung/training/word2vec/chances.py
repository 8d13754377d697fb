"""What the kernels look up about each word: chances of being kept and drawn, Huffman paths, rows of n-grams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rung.training.compiled import compiled
from rung.training.word2vec.arrays import Draws, Floats64, Ints64, Paths, Subwords

UInts8 = NDArray[np.uint8]

_FULL = float(1 << 32)
_FNV_OFFSET, _FNV_PRIME, _LOW = np.uint64(2166136261), np.uint64(16777619), np.uint64(0xFFFFFFFF)
_SIGN = np.uint64(0xFFFFFF00)


def keep_chances(counts: Ints64, subsample: float) -> Floats64:
    """The chance (words,) that an occurrence of each word is kept; 1 for all when `subsample` is 0.

    As in word2vec.c and gensim: (sqrt(f / t) + 1) t / f, at most 1, for a word of frequency f and t = `subsample`.
    """
    if not subsample:
        return np.ones(len(counts))
    ratio = counts / (subsample * counts.sum())
    chances: Floats64 = np.minimum(1.0, (np.sqrt(ratio) + 1) / ratio)
    return chances


def make_draws(counts: Ints64, *, subsample: float, exponent: float) -> Draws:
    """Chances for the kernels: of keeping words, and of drawing them as negatives by counts ** `exponent`."""
    weights = counts.astype(np.float64) ** exponent
    chances = weights * (len(weights) / weights.sum())
    alias = np.arange(len(weights), dtype=np.int32)
    _fill_alias_table(chances, alias, np.empty(len(weights), np.int64), np.empty(len(weights), np.int64))
    return Draws(_of_32_bits(keep_chances(counts, subsample)), _of_32_bits(chances), alias)


def _of_32_bits(chances: Floats64) -> NDArray[np.uint32]:
    return np.minimum(np.round(chances * _FULL), _FULL - 1).astype(np.uint32)


@compiled
def _fill_alias_table(chances: Floats64, alias: NDArray[np.int32], small: Ints64, large: Ints64) -> None:
    """Vose's method (1991): turn `chances`, 1 on average, into those of staying; the rest of a place is its alias's."""
    smalls = larges = 0
    for word in range(len(chances)):
        if chances[word] < 1.0:
            small[smalls] = word
            smalls += 1
        else:
            large[larges] = word
            larges += 1
    while smalls > 0 and larges > 0:
        smalls -= 1
        giver = large[larges - 1]
        alias[small[smalls]] = giver
        chances[giver] -= 1.0 - chances[small[smalls]]
        if chances[giver] < 1.0:
            larges -= 1
            small[smalls] = giver
            smalls += 1
    for place in range(smalls):  # what rounding left over
        chances[small[place]] = 1.0
    for place in range(larges):
        chances[large[place]] = 1.0


def no_paths() -> Paths:
    """What the kernels get in place of paths when negatives are sampled."""
    return Paths(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))


def huffman_paths(counts: Ints64) -> Paths:
    """The path of each word from the root of a Huffman tree; label 1 for a turn with code bit 0, as in word2vec.c.

    `counts` (words,) must be falling. Inner nodes are numbered 0 to words - 2 in the order they are made.
    """
    words = len(counts)
    parents, bits, depths = np.zeros(2 * words, np.int64), np.zeros(2 * words, np.uint8), np.zeros(words, np.int64)
    _build_tree(counts, np.empty(2 * words, np.int64), parents, bits, depths)
    starts = np.concatenate([[0], np.cumsum(depths)])
    nodes, labels = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
    _fill_paths(parents, bits, starts, nodes, labels)
    return Paths(starts, nodes, labels)


@compiled
def _build_tree(counts: Ints64, weights: Ints64, parents: Ints64, bits: UInts8, depths: Ints64) -> None:
    """Join the two lightest nodes until one is left: words from the back, inner nodes as they were made."""
    words = len(counts)
    for word in range(words):
        weights[word] = counts[word]
    leaf, inner = words - 1, words
    for made in range(words, 2 * words - 1):
        weights[made] = 0
        for bit in range(2):
            if leaf >= 0 and (inner >= made or weights[leaf] < weights[inner]):
                lightest = leaf
                leaf -= 1
            else:
                lightest = inner
                inner += 1
            parents[lightest] = made
            bits[lightest] = bit
            weights[made] += weights[lightest]
    root = 2 * words - 2
    for word in range(words):
        node = word
        while node != root:
            depths[word] += 1
            node = parents[node]


@compiled
def _fill_paths(
    parents: Ints64, bits: UInts8, starts: Ints64, nodes: NDArray[np.int32], labels: NDArray[np.float32]
) -> None:
    words = len(starts) - 1
    for word in range(words):
        node = word
        for place in range(starts[word + 1] - 1, starts[word] - 1, -1):
            labels[place] = np.float32(1 - bits[node])
            node = parents[node]
            nodes[place] = node - words


def own_rows(words: int) -> Subwords:
    """Each word has one row, its own."""
    return Subwords(np.arange(words + 1, dtype=np.int64), np.arange(words, dtype=np.int32))


def subword_rows(words: Sequence[str], *, min_n: int, max_n: int, buckets: int) -> Subwords:
    """The rows of each word: its own, then len(words) + the bucket of each character n-gram of `<word>`.

    The same buckets as `rung.nets.word_vectors.ngram_buckets` gives, for a whole vocabulary at once.
    """
    encoded = [f"<{word}>".encode("utf-8", "surrogatepass") for word in words]
    text = np.frombuffer(b"".join(encoded), np.uint8)
    ends = np.cumsum([len(word) for word in encoded], dtype=np.int64)
    sizes = np.zeros(len(words) + 1, np.int64)
    _hash_ngrams(text, ends, min_n, max_n, buckets, sizes, np.empty(0, np.int32))
    starts = np.cumsum(sizes)
    rows = np.empty(starts[-1], np.int32)
    _hash_ngrams(text, ends, min_n, max_n, buckets, starts.copy(), rows)
    return Subwords(starts, rows)


@compiled
def _hash_ngrams(  # noqa: PLR0917 - compiled functions take no keywords
    text: UInts8, ends: Ints64, min_n: int, max_n: int, buckets: int, places: Ints64, rows: NDArray[np.int32]
) -> None:
    """Fill `rows` from `places[word]` on; while `rows` is empty, count the rows of each word in `places[word + 1]`."""
    words = len(ends)
    counting = len(rows) == 0
    for word in range(words):
        begin, end = (ends[word - 1] if word > 0 else 0), ends[word]
        place = places[word]
        if not counting:
            rows[place] = word
        found = 1
        for start in range(begin, end):
            if text[start] & 0xC0 == 0x80:  # inside a character
                continue
            state, length, at = _FNV_OFFSET, 0, start
            while at < end and length < max_n:
                first = True
                while at < end and (first or text[at] & 0xC0 == 0x80):
                    byte = np.uint64(text[at])
                    state = ((state ^ (byte if byte < 128 else byte | _SIGN)) * _FNV_PRIME) & _LOW
                    first = False
                    at += 1
                length += 1
                if length >= min_n and not (length == 1 and (start == begin or at == end)):
                    if not counting:
                        rows[place + found] = words + np.int64(state % np.uint64(buckets))
                    found += 1
        if counting:
            places[word + 1] = found
