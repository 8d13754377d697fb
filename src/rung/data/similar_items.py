"""Which of many short texts are the same, or nearly: the comparisons behind splits, leak checks and profiles.

Texts are compared as sequences of words, so case, punctuation and white space make no difference. Words are those of
`near_duplicates` (runs of letters and digits; each Chinese, Japanese, Thai, ... character one of its own) after NFKC
and case folding. Sequences are compared by 64-bit hashes: a million texts give one mistake in 37 million runs.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rung.data.hashing import UInts, mix64
from rung.data.near_duplicates import (
    BANDS,
    SHINGLE_WORDS,
    SHORT_WORDS,
    SIGNATURE_LENGTH,
    alike,
    band_keys,
    batches,
    min_hash_signatures,
    sequence_hashes,
    word_hashes,
    word_runs,
)

THRESHOLD = 0.8
"""Jaccard similarity of word 5-grams from which two texts of at least `SHORT_WORDS` words are near-duplicates."""
NGRAM_WORDS = 8
_MOST_ROUNDS = 64
_COMPARISONS = 200_000
"""About how many pairs may be compared in vain, shared out evenly over the texts (8 to 256 each).

Only templates filled in thousands of ways come near it: there every text meets every other and is not quite alike. What
then is missed, two texts alike among thousands that nearly are, the leak check looks for again, by 8-grams too.
"""

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class _Separators(dict[int, int]):
    """For `str.translate`: punctuation, separators and control characters become blanks."""

    def __missing__(self, code: int) -> int:
        value = ord(" ") if unicodedata.category(chr(code))[0] in "PZC" else code
        self[code] = value
        return value


_SEPARATORS = _Separators()


def normalised(text: str) -> str:
    """`text` as it is compared: NFKC, case folded, punctuation outside ASCII blanked (inside it parts words anyway).

    A text without any word ("!!!", "?") stands for itself.
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", text).casefold().translate(_SEPARATORS)


@dataclass(frozen=True)
class ComparableTexts:
    """n texts, ready for comparison.

    text, offsets: all normalised texts, and where each begins. num_words: (n,). sequence: (n,) equal for equal word
    sequences. signatures: (n, SIGNATURE_LENGTH) minimum hashes; zeros for texts shorter than `SHORT_WORDS` words.
    """

    text: bytes
    offsets: Ints
    num_words: NDArray[np.int32]
    sequence: UInts
    signatures: NDArray[np.uint16]

    @classmethod
    def of(cls, texts: Sequence[str]) -> ComparableTexts:
        """Normalise and fingerprint `texts`."""
        encoded = [normalised(text).encode("utf-8", "replace") for text in texts]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        joined = b"".join(encoded)
        num_words = np.zeros(len(texts), np.int32)
        sequence = np.zeros(len(texts), np.uint64)
        signatures = np.zeros((len(texts), SIGNATURE_LENGTH), np.uint16)
        for first, last, words, counts in _words_in_batches(joined, offsets):
            num_words[first:last] = counts
            sequence[first:last] = sequence_hashes(words, counts)
            long = counts >= SHORT_WORDS
            place = np.cumsum(long) - 1  # among the long ones; filling the signatures of short texts takes longest
            shingles, owners = word_runs(words, counts, SHINGLE_WORDS)
            chosen = long[owners]
            found, _ = min_hash_signatures(shingles[chosen], place[owners[chosen]], int(long.sum()))
            signatures[first:last][long] = found
        for wordless in np.flatnonzero(num_words == 0).tolist():
            digest = hashlib.sha256(texts[wordless].strip().encode("utf-8", "replace")).digest()
            sequence[wordless] = int.from_bytes(digest[:8], "little")
        return cls(joined, offsets, num_words, sequence, signatures)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def texts(self, numbers: Ints) -> list[bytes]:
        """The normalised texts of these numbers."""
        return [self.text[self.offsets[at] : self.offsets[at + 1]] for at in numbers.tolist()]

    @cached_property
    def ngrams(self) -> tuple[UInts, Ints]:
        """Hashes of all runs of `NGRAM_WORDS` words of all texts, in order, and whose they are."""
        runs, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for first, _, words, counts in _words_in_batches(self.text, self.offsets):
            run, owner = word_runs(words, counts, NGRAM_WORDS)
            runs.append(run)
            owners.append(owner + first)
        return np.concatenate(runs), np.concatenate(owners)

    def num_distinct_words(self) -> int:
        """How many different words the texts have together."""
        distinct = np.zeros(0, np.uint64)
        for _, _, words, _ in _words_in_batches(self.text, self.offsets):
            distinct = np.union1d(distinct, words)
        return len(distinct)


def _words_in_batches(text: bytes, offsets: Ints) -> Iterator[tuple[int, int, UInts, Ints]]:
    """Runs of texts first:last with the hashes of all their words and how many each has."""
    for first, last in batches(offsets):
        words, counts = word_hashes(text[offsets[first] : offsets[last]], offsets[first : last + 1] - offsets[first])
        yield first, last, words, counts


def equal_groups(sequence: UInts) -> Ints:
    """(n,) the number of the first text that is equal to each, itself included."""
    _, first, inverse = np.unique(sequence, return_index=True, return_inverse=True)
    result: Ints = first[inverse]
    return result


def similar_clusters(texts: ComparableTexts, ranks: Ints, threshold: float = THRESHOLD) -> Ints:
    """(n,) a cluster number for each text: whatever is equal or alike, at first hand or by way of others, shares one.

    `ranks` (n,) are all different and settle the order of comparisons, so that the order of texts does not.
    """
    order = np.argsort(ranks)
    first = np.empty(len(texts), np.int64)
    first[order] = order[equal_groups(texts.sequence[order])]
    parents = _Parents(first)
    distinct = np.flatnonzero(first == np.arange(len(texts)))
    long = distinct[texts.num_words[distinct] >= SHORT_WORDS]
    in_vain = _InVain(len(texts))

    def settled(leaders: Ints, members: Ints) -> Flags:
        known: Flags = parents.roots(leaders) == parents.roots(members)
        return known | in_vain.enough(members)

    for leaders, members in _met(texts.signatures, long, ranks, settled):
        same = alike([texts.signatures], leaders, members, texts.texts, threshold)
        parents.join(leaders[same], members[same])
        in_vain.add(members[~same])
    return parents.roots(np.arange(len(texts)))


def similar_to(texts: ComparableTexts, others: ComparableTexts, threshold: float = THRESHOLD) -> Ints:
    """(n,) for each of `texts` the number of a near-duplicate in `others`, or -1; both of at least 12 words."""
    start = len(others)
    count = start + len(texts)
    joined = _joined(others, texts)
    distinct_others = np.flatnonzero(equal_groups(others.sequence) == np.arange(start))
    numbers = np.concatenate([distinct_others, np.arange(start, count)])
    long = numbers[joined.num_words[numbers] >= SHORT_WORDS]
    match = np.full(count, -1, np.int64)
    in_vain = _InVain(count)

    def settled(leaders: Ints, members: Ints) -> Flags:
        return (leaders >= start) | (members < start) | (match[members] >= 0) | in_vain.enough(members)

    for leaders, members in _met(joined.signatures, long, np.arange(count), settled, first=start):
        same = alike([joined.signatures], leaders, members, joined.texts, threshold)
        match[members[same]] = leaders[same]
        in_vain.add(members[~same])
    return match[start:]


def _joined(first: ComparableTexts, second: ComparableTexts) -> ComparableTexts:
    return ComparableTexts(
        first.text + second.text,
        np.concatenate([first.offsets, second.offsets[1:] + first.offsets[-1]]),
        np.concatenate([first.num_words, second.num_words]),
        np.concatenate([first.sequence, second.sequence]),
        np.concatenate([first.signatures, second.signatures]),
    )


class _InVain:
    """How often each text was compared and found to be unlike, and when that is enough."""

    def __init__(self, count: int) -> None:
        self._times = np.zeros(count, np.int32)
        self._most = int(np.clip(_COMPARISONS // max(count, 1), 8, 256))

    def enough(self, members: Ints) -> Flags:
        return self._times[members] >= self._most

    def add(self, members: Ints) -> None:
        self._times[members] += 1  # no member is twice in a round


def _met(
    signatures: NDArray[np.uint16],
    members: Ints,
    ranks: Ints,
    settled: Callable[[Ints, Ints], Flags],
    *,
    first: int = 0,
) -> Iterator[tuple[Ints, Ints]]:
    """Pairs (leaders, members) that share a bucket of some band and are not settled when their turn comes.

    In each bucket one leads and is paired with all others, then the next; who leads first differs from band to band,
    by the ranks alone, except that numbers below `first` lead before all others.
    """
    if not members.size:
        return
    for band in range(BANDS):
        keys = band_keys([signatures[members]], band)
        turn = mix64(ranks[members].astype(np.uint64) * np.uint64(BANDS) + np.uint64(band))
        order = np.lexsort((turn, members >= first, keys))
        yield from _rounds(members[order], keys[order], settled)


def _rounds(members: Ints, keys: UInts, settled: Callable[[Ints, Ints], Flags]) -> Iterator[tuple[Ints, Ints]]:
    """Pairs within runs of equal keys: the first of each run with all after it, then the second, and so on."""
    alone = np.ones(len(keys), bool)
    alone[1:] &= keys[1:] != keys[:-1]
    alone[:-1] &= keys[1:] != keys[:-1]
    members, keys = members[~alone], keys[~alone]
    for _ in range(_MOST_ROUNDS):
        if not members.size:
            return
        heads = np.ones(len(keys), bool)
        heads[1:] = keys[1:] != keys[:-1]
        leader_of = members[heads][np.cumsum(heads) - 1][~heads]
        members, keys = members[~heads], keys[~heads]
        open_pairs = ~settled(leader_of, members)
        if open_pairs.any():
            yield leader_of[open_pairs], members[open_pairs]


class _Parents:
    """Union-find over arrays; the root of a set is its member of the lowest number, whatever the order of joins."""

    def __init__(self, parents: Ints) -> None:
        self._parents = parents.copy()

    def roots(self, members: Ints) -> Ints:
        found: Ints = self._parents[members]
        while not np.array_equal(above := self._parents[found], found):
            found = above
        self._parents[members] = found
        return found

    def join(self, left: Ints, right: Ints) -> None:
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            one, other = self._root(a), self._root(b)
            self._parents[max(one, other)] = min(one, other)

    def _root(self, member: int) -> int:
        while (above := int(self._parents[member])) != member:
            member = above
        return member


def ngram_shares(texts: ComparableTexts, others: ComparableTexts) -> NDArray[np.float64]:
    """(n,) the share of each text's distinct word 8-grams that `others` contain; 0 for a text shorter than 8 words."""
    runs, owners = texts.ngrams
    bits = np.uint64(len(texts).bit_length())  # an n-gram of a text as one number: text, hash without its end, flag
    flag, owner_shift = np.uint64(1), np.uint64(64) - bits
    entries = (owners.astype(np.uint64) << owner_shift) | ((runs >> bits) & ~flag) | is_among(runs, others.ngrams[0])
    entries.sort()
    distinct = np.ones(len(entries), bool)
    distinct[1:] = entries[1:] != entries[:-1]
    entries = entries[distinct]
    owner = (entries >> owner_shift).astype(np.int64)
    total = np.bincount(owner, minlength=len(texts))
    return np.bincount(owner, weights=entries & flag, minlength=len(texts)) / np.maximum(total, 1)


def is_among(hashes: UInts, others: UInts) -> Flags:
    """(n,) which of `hashes` are in `others`. Most of those that are not, a table of leading bits tells at once."""
    known = np.sort(others)
    bits = len(known).bit_length() + 3
    shift = np.uint64(64 - bits)
    seen = np.zeros(1 << bits, bool)
    seen[known >> shift] = True
    found: Flags = seen[hashes >> shift]
    candidates = np.flatnonzero(found)
    wanted = hashes[candidates]
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found[candidates] = known[places] == wanted
    return found


def keyed_chances(ids: Sequence[str], seed: int) -> UInts:
    """(n,) a hash of each id keyed by `seed`: an order that depends on nothing else."""
    key = hashlib.sha256(f"rung label split {seed}".encode()).digest()[:16]
    digests = b"".join(hashlib.blake2b(item.encode(), digest_size=8, key=key).digest() for item in ids)
    return mix64(np.frombuffer(digests, np.uint64))
