"""Near-duplicates: word shingles, one-permutation MinHash signatures, banded lookup, verified Jaccard.

A document is the set of its runs of `SHINGLE_WORDS` words. `min_hash_signatures` takes `SIGNATURE_LENGTH` minimum
hashes of each set in one pass (one permutation hashing, Li, Owen & Zhang 2012; empty bins filled as in Shrivastava
2017, arXiv:1703.04664). Two sets of Jaccard similarity s agree in each place with probability s, so with `BANDS` bands
of `ROWS` places they meet in at least one band with probability 1 - (1 - s^ROWS)^BANDS: 0.9999 at s = 0.8, 0.53 at 0.5,
0.06 at 0.3. Whoever meets is verified on the real sets before anything is dropped.

A word is a run of letters, digits and non-ASCII bytes, ASCII letters folded to lower case; each code point of three or
four UTF-8 bytes (Chinese, Japanese, Thai, Devanagari, ...) begins a new word, since those scripts part words otherwise
or not at all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from rung.data.hashing import UInts, mix64

SHINGLE_WORDS = 5
BANDS, ROWS = 24, 5
SIGNATURE_LENGTH = BANDS * ROWS
SHORT_WORDS = 12
"""Documents of fewer words have too few shingles for a similarity: they are compared as word sequences, exactly."""

_BATCH_BYTES = 1 << 18  # so that work arrays stay in the second-level cache
_NON_ASCII, _WORD_OF_ITS_OWN = 0x80, 0xE0  # the first bytes of code points of more than one, and more than two bytes
_EMPTY = np.uint32(0xFFFFFFFF)
_BASE = 0x9E3779B97F4A7C15
_SHINGLE_BASE = np.uint64(0xD1342543DE82EF95)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fingerprints:
    """What is kept of each document to compare it with others; `n` documents.

    signatures: (n, SIGNATURE_LENGTH) uint16, the low bits of the minimum hashes.
    num_words: (n,) int32. word_sequence: (n,) uint64, a hash of all words in order.
    num_filled: (n,) int16, how many bins the document's own shingles filled: a lower bound of its distinct shingles.
    """

    signatures: npt.NDArray[np.uint16]
    num_words: npt.NDArray[np.int32]
    word_sequence: UInts
    num_filled: npt.NDArray[np.int16]


def fingerprints(text: bytes | memoryview, offsets: Ints) -> Fingerprints:
    """Fingerprint the documents text[offsets[i]:offsets[i + 1]]."""
    count = len(offsets) - 1
    result = Fingerprints(
        np.zeros((count, SIGNATURE_LENGTH), np.uint16),
        np.zeros(count, np.int32),
        np.zeros(count, np.uint64),
        np.zeros(count, np.int16),
    )
    for first, last in batches(offsets):
        local = offsets[first : last + 1] - offsets[first]
        words, counts = word_hashes(text[offsets[first] : offsets[last]], local)
        result.num_words[first:last] = counts
        result.word_sequence[first:last] = sequence_hashes(words, counts)
        shingles, owners = word_runs(words, counts, SHINGLE_WORDS)
        result.signatures[first:last], result.num_filled[first:last] = min_hash_signatures(
            shingles, owners, last - first
        )
    return result


def batches(offsets: Ints) -> Iterator[tuple[int, int]]:
    """Runs of documents of about `_BATCH_BYTES` together."""
    first, count = 0, len(offsets) - 1
    while first < count:
        last = int(np.searchsorted(offsets, offsets[first] + _BATCH_BYTES, side="right")) - 1
        last = min(max(last, first + 1), count)
        yield first, last
        first = last


# Words and shingles ---------------------------------------------------------------------------------------------------


@cache
def _folded() -> bytes:
    """Translation table: what a byte stands for in its word, 0 where it parts words."""
    table = bytearray(256)
    for byte in range(256):
        if byte >= _NON_ASCII:
            table[byte] = byte
        elif chr(byte).isalnum():
            table[byte] = ord(chr(byte).lower())
    return bytes(table)


def word_hashes(text: bytes | memoryview, offsets: Ints) -> tuple[UInts, Ints]:
    """Hashes of all words of a batch in order, and the number of words of each document.

    A word is summed up eight bytes at a time, each eight times a power of its own: one round for all words, one more
    for those longer than eight bytes, and so on. What parts words is zero and adds nothing, so a word may be taken to
    run on to the start of the next.
    """
    padded = bytes(text).translate(_folded()) + bytes(8)
    values = np.frombuffer(padded, np.uint8)[:-8]
    starts = values >= _WORD_OF_ITS_OWN
    starts[1:] |= (values[1:] != 0) & (values[:-1] == 0)
    heads = offsets[:-1][offsets[:-1] < len(values)]
    starts[heads] = values[heads] != 0  # a document never continues the last word of the one before
    begins = np.flatnonzero(starts)
    counts = np.diff(np.searchsorted(begins, offsets))
    eights = np.ndarray(len(values), np.uint64, padded, strides=(1,))  # the eight bytes from each place on
    lengths = np.diff(begins, append=len(values))
    hashes = eights[begins] & _masks()[np.minimum(lengths, 8)]
    longer = np.flatnonzero(lengths > 8)
    power = _BASE
    for done in range(8, int(lengths.max(initial=0)), 8):
        left = lengths[longer] - done
        hashes[longer] += (eights[begins[longer] + done] & _masks()[np.minimum(left, 8)]) * np.uint64(power)
        power = power * _BASE % (1 << 64)
        longer = longer[left > 8]
    return mix64(hashes), counts


@cache
def _masks() -> UInts:
    """Nine masks: the first n bytes of eight, in memory order."""
    return np.array([int.from_bytes(b"\xff" * n + bytes(8 - n), sys.byteorder) for n in range(9)], np.uint64)


def sequence_hashes(words: UInts, counts: Ints) -> UInts:
    """One hash a document over all its words in order; 0 for a document without words."""
    ends = np.cumsum(counts)
    starts = ends - counts
    place = np.arange(len(words), dtype=np.uint64) - np.repeat(starts, counts).astype(np.uint64)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mix64(words + place))])
    result: UInts = sums[ends] - sums[starts]
    return result


def word_runs(words: UInts, counts: Ints, length: int) -> tuple[UInts, Ints]:
    """Hashes of all runs of `length` words that lie within one document, and that document's number."""
    total = len(words) - length + 1
    if total <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    rolling = words[:total].copy()
    for shift in range(1, length):
        rolling *= _SHINGLE_BASE
        rolling += words[shift : shift + total]
    owners = np.repeat(np.arange(len(counts)), counts)
    within = owners[:total] == owners[length - 1 :]
    return mix64(rolling[within]), owners[:total][within]


# Signatures -----------------------------------------------------------------------------------------------------------


def min_hash_signatures(
    shingles: UInts, owners: Ints, count: int
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int16]]:
    """One permutation hashing: the high bits of a shingle's hash choose a bin, the low bits compete to be its minimum.

    A bin that no shingle fell into borrows from the first filled one in an order of its own, the same for all
    documents; so two documents agree there with the probability with which they agree in a filled bin.
    """
    bins = (shingles >> np.uint64(32)) * np.uint64(SIGNATURE_LENGTH) >> np.uint64(32)
    minima = np.full(count * SIGNATURE_LENGTH, _EMPTY, np.uint32)
    places = owners * SIGNATURE_LENGTH + bins.astype(np.int64)
    np.minimum.at(minima, places, (shingles & np.uint64(0x7FFFFFFF)).astype(np.uint32))
    table = minima.reshape(count, SIGNATURE_LENGTH)
    filled = table != _EMPTY
    num_filled = filled.sum(axis=1)
    rows, columns = np.nonzero(~filled & (num_filled > 0)[:, None])
    borrowed = table.copy()
    for step in range(SIGNATURE_LENGTH - 1):
        if not rows.size:
            break
        lender = _borrowing_order()[step][columns]
        ready = filled[rows, lender]
        borrowed[rows[ready], columns[ready]] = table[rows[ready], lender[ready]]
        rows, columns = rows[~ready], columns[~ready]
    return borrowed.astype(np.uint16), num_filled.astype(np.int16)


@cache
def _borrowing_order() -> npt.NDArray[np.int64]:
    """(SIGNATURE_LENGTH - 1, SIGNATURE_LENGTH): for each bin (column), all other bins in a fixed random order."""
    order = np.empty((SIGNATURE_LENGTH - 1, SIGNATURE_LENGTH), np.int64)
    for column in range(SIGNATURE_LENGTH):
        keys = mix64(np.arange(SIGNATURE_LENGTH, dtype=np.uint64) + np.uint64(1000 * (column + 1)))
        shuffled = np.argsort(keys)
        order[:, column] = shuffled[shuffled != column]
    return order


# Comparing ------------------------------------------------------------------------------------------------------------

SignatureParts = Sequence[npt.NDArray[np.uint16]]
Texts = Callable[[Ints], list[bytes]]
_SURELY_BELOW = 0.15  # more than four standard deviations of the estimate from 120 places at any similarity near 0.8
_PAIR_BATCH = 4096


def find_near_duplicates(
    signatures: SignatureParts,
    *,
    eligible: npt.NDArray[np.bool_],
    protected: npt.NDArray[np.bool_],
    rank: Ints,
    texts: Texts,
    threshold: float,
) -> Ints:
    """For each document the number of the one it is dropped in favour of, or -1.

    `signatures` are the parts (memory-mapped, say) of one long table; `eligible` documents take part; of two that are
    alike the one of higher `rank` (all different) goes, unless it is `protected`. What is promised: of two documents
    that are left, one of them not protected, and met in a band, the Jaccard similarity is below `threshold`.
    Memory: a few machine words a document, one band at a time.

    Within a band's bucket all are compared with the lowest-ranked; those alike are dropped, and the rest compared with
    the lowest-ranked of the rest, and so on: buckets of many copies of one text take one round, not a square of pairs.
    """
    dropped_for = np.full(len(eligible), -1, np.int64)
    for band in range(BANDS):
        alive = np.flatnonzero(eligible & (dropped_for < 0))
        members, keys = _not_alone(alive, band_keys(signatures, band)[alive])
        order = np.lexsort((rank[members], keys))
        members, keys = members[order], keys[order]
        while members.size:
            leaders = np.concatenate([[True], keys[1:] != keys[:-1]])
            leader_of = members[leaders][np.cumsum(leaders) - 1]
            members, keys, leader_of = members[~leaders], keys[~leaders], leader_of[~leaders]
            same = ~protected[members]
            same[same] = alike(signatures, leader_of[same], members[same], texts, threshold)
            dropped_for[members[same]] = leader_of[same]
            members, keys = members[~same], keys[~same]
    return dropped_for


def band_keys(signatures: SignatureParts, band: int) -> UInts:
    """One hash a document over the places of a band."""
    keys = []
    for part in signatures:
        places = np.zeros((len(part), 8), np.uint16)
        places[:, :ROWS] = part[:, band * ROWS : (band + 1) * ROWS]
        halves = places.view(np.uint64)
        keys.append(mix64(mix64(halves[:, 0]) ^ halves[:, 1]))
    return np.concatenate(keys)


def _not_alone(members: Ints, keys: UInts) -> tuple[Ints, UInts]:
    """Those members whose key another one has too: few, as a rule."""
    order = np.argsort(keys)
    equal = keys[order][1:] == keys[order][:-1]
    shared = np.zeros(len(members), bool)
    shared[1:] |= equal
    shared[:-1] |= equal
    chosen = order[shared]
    return members[chosen], keys[chosen]


def alike(signatures: SignatureParts, left: Ints, right: Ints, texts: Texts, threshold: float) -> npt.NDArray[np.bool_]:
    """Which pairs have a Jaccard similarity of at least `threshold`: by estimate if clearly below, else exactly."""
    starts = np.cumsum([0, *(len(part) for part in signatures)])
    result = np.zeros(len(left), bool)
    for first in range(0, len(left), _PAIR_BATCH):
        pair = slice(first, first + _PAIR_BATCH)
        agree = (_take(signatures, starts, left[pair]) == _take(signatures, starts, right[pair])).mean(axis=1)
        close = np.flatnonzero(agree >= threshold - _SURELY_BELOW) + first
        for part in range(0, len(close), _PAIR_BATCH // 16):
            chosen = close[part : part + _PAIR_BATCH // 16]
            result[chosen] = jaccard(texts(left[chosen]), texts(right[chosen])) >= threshold
    return result


def _take(signatures: SignatureParts, starts: Ints, documents: Ints) -> npt.NDArray[np.uint16]:
    part_of = np.searchsorted(starts, documents, side="right") - 1
    taken = np.empty((len(documents), SIGNATURE_LENGTH), np.uint16)
    for part in np.unique(part_of):
        here = part_of == part
        taken[here] = signatures[part][documents[here] - starts[part]]
    return taken


def jaccard(left: list[bytes], right: list[bytes]) -> npt.NDArray[np.float64]:
    """Exact Jaccard similarity of the shingle sets of each pair (1 for two documents without shingles)."""
    (owners, codes), (other_owners, other_codes) = _shingle_sets(left), _shingle_sets(right)
    common = np.bincount(owners[np.isin(codes, other_codes, assume_unique=True)], minlength=len(left))
    sizes = np.bincount(owners, minlength=len(left)) + np.bincount(other_owners, minlength=len(left))
    return np.where(sizes > 0, common / np.maximum(sizes - common, 1), 1.0)


def _shingle_sets(texts: list[bytes]) -> tuple[Ints, UInts]:
    """The distinct shingles of each text: the text's number, and a hash of number and shingle (plain integers sort
    an order of magnitude faster than pairs)."""
    offsets = np.cumsum([0, *map(len, texts)])
    shingles, owners = word_runs(*word_hashes(b"".join(texts), offsets), SHINGLE_WORDS)
    codes, first = np.unique(mix64(shingles ^ mix64(owners.astype(np.uint64))), return_index=True)
    return owners[first], codes
