"""N-grams of a token stream, counted by sorting: one array of integers an order, no table of tuples.

Every n-gram of k tokens gets a number, its place among all of them in sorted order. An n-gram one longer is then a pair
(number of all but the last token, last token), one 64-bit integer; so each order is one sort of as many integers as the
text has tokens, and nothing is ever hashed or boxed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Numbers = NDArray[np.int32]

COUNTING_BYTES_PER_TOKEN = 90
"""Peak while one order is sorted and estimated, when every n-gram is different: keys, order and sorted keys of 8 bytes,
numbers of two orders, two counted levels, the stream."""


@dataclass(frozen=True)
class CountedLevel:
    """The distinct n-grams of one length k, sorted.

    `tokens` (n,) the last token of each, `parents` (n,) the number of its first k - 1 tokens at the level below,
    `suffixes` (n,) that of its last k - 1, `counts` (n,) how often it occurs, `opens` (n,) whether its first token is
    the end-of-text token that stands before a document.
    """

    tokens: NDArray[np.uint32]
    parents: Numbers
    suffixes: Numbers
    counts: Ints
    opens: NDArray[np.bool_]


def count_ngrams(stream: NDArray[np.unsignedinteger], *, order: int, eos_token_id: int) -> Iterator[CountedLevel]:
    """Yield the n-grams of 2 .. `order` tokens of `stream` (tokens,), which begins with an end-of-text token.

    That token stands before the first document and closes every document; a document's first token is predicted from
    the one before it. It is never in the middle of an n-gram: nothing crosses a document's border.
    """
    size = int(stream.max()) + 1
    numbers = stream.astype(np.int32)  # of the n-gram that ends at each place; -1 where there is none
    opens = np.arange(size) == eos_token_id
    inside = stream[:-1] != eos_token_id
    for k in range(2, order + 1):
        exists = numbers[:-1] >= 0
        ends = np.flatnonzero(exists if k == 2 else exists & inside) + 1
        keys = numbers[ends - 1].astype(np.int64) * size + stream[ends]
        by_key = np.argsort(keys)
        keys = keys[by_key]
        is_new = np.diff(keys, prepend=-1) != 0
        firsts = np.flatnonzero(is_new)
        distinct, ends = keys[firsts], ends[by_key]
        del keys, by_key
        parents = (distinct // size).astype(np.int32)
        opens = opens[parents]
        level = CountedLevel(
            tokens=(distinct % size).astype(np.uint32),
            parents=parents,
            suffixes=numbers[ends[firsts]],
            counts=np.diff(firsts, append=len(ends)),
            opens=opens,
        )
        numbers = np.full(len(stream), -1, np.int32)
        numbers[ends] = np.cumsum(is_new, dtype=np.int32) - 1
        yield level
