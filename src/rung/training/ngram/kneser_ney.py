"""Interpolated modified Kneser-Ney smoothing: Chen and Goodman, "An Empirical Study of Smoothing Techniques for
Language Modeling", Harvard TR-10-98 (1998), section 4.1.6 and equations 4.37 to 4.40.

At the highest order an n-gram counts as often as it occurs; at lower orders as often as there are different tokens
before it - except an n-gram that opens a document, which nothing can stand before, so it keeps its count (as in SRILM
and KenLM: Heafield et al. 2013, "Scalable Modified Kneser-Ney Language Model Estimation", section 3.1). Each order has
three discounts, for counts of 1, 2 and more. Unigrams are interpolated with the uniform distribution over the
vocabulary, so every token has a probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from rung.errors import DataError
from rung.nets.ngram import NgramLevel, NgramModel
from rung.progress import SILENT, Progress
from rung.training.ngram.counting import CountedLevel, count_ngrams

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Of an order whose counts of counts do not give discounts; those of KenLM's `--discount_fallback`."""


@dataclass(frozen=True)
class Estimate:
    """A model, and the discounts of each order from the unigrams up; `estimated[k]` is False where they are the
    fall-back.
    """

    model: NgramModel
    discounts: tuple[tuple[float, float, float], ...]
    estimated: tuple[bool, ...]


def estimate(
    stream: NDArray[np.unsignedinteger],
    *,
    order: int,
    vocab_size: int,
    eos_token_id: int,
    progress: Progress = SILENT,
) -> Estimate:
    """Estimate a model of `order` from `stream` (tokens,), which begins with an end-of-text token and ends with one.

    See `count_ngrams` for what the end-of-text tokens mean. Raises DataError when the stream holds no text.
    """
    if len(stream) < 2:
        raise DataError("there is no text to count", hint="give more text")
    builder = _Builder(vocab_size)
    with progress.task("counting n-grams", order, "orders") as advance:
        level: CountedLevel | None = None
        # The counts of one order come from the n-grams of the next, so no more than two are held as counted.
        for longer in chain(count_ngrams(stream, order=order, eos_token_id=eos_token_id), [None]):
            builder.add(level, _adjusted_counts(stream, level, longer, vocab_size))
            level = longer
            advance(1)
    model = NgramModel(builder.levels(), eos_token_id=eos_token_id)
    return Estimate(model, tuple(builder.discounts), tuple(builder.estimated))


def modified_discounts(counts: Ints) -> tuple[tuple[float, float, float], bool]:
    """The discounts of counts of 1, 2 and more from an order's adjusted `counts` (n-grams,), and whether they are
    estimated (equation 4.38). They are the fall-back where one of the counts of counts n1 .. n4 is zero, or a discount
    would not be above 0 and at most its count: a tiny text, or an alphabet where everything is frequent.
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    if not (n1 and n2 and n3 and n4):
        return FALLBACK_DISCOUNTS, False
    y = n1 / (n1 + 2 * n2)
    discounts = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    if not all(0 < discount <= most for most, discount in enumerate(discounts, start=1)):
        return FALLBACK_DISCOUNTS, False
    return discounts, True


def _adjusted_counts(
    stream: NDArray[np.unsignedinteger], level: CountedLevel | None, longer: CountedLevel | None, vocab_size: int
) -> Ints:
    """The counts (n-grams,) that the estimate of `level` rests on; None stands for the unigrams, and for no longer
    n-grams.
    """
    if longer is None:
        return np.bincount(stream[1:], minlength=vocab_size) if level is None else level.counts
    different = np.bincount(longer.suffixes, minlength=vocab_size if level is None else len(level.tokens))
    return different if level is None else np.where(level.opens, level.counts, different)


class _Builder:
    """Adds one order after the other: probabilities are interpolated from below, back-offs belong to what is below."""

    def __init__(self, vocab_size: int) -> None:
        self.discounts: list[tuple[float, float, float]] = []
        self.estimated: list[bool] = []
        self._vocab_size = vocab_size
        self._tokens: list[NDArray[np.unsignedinteger]] = []
        self._logprobs: list[NDArray[np.float32]] = []
        self._backoffs: list[NDArray[np.float32]] = []
        self._first_child: list[NDArray[np.uint32]] = []
        self._lower = np.full(1, 1.0 / vocab_size)  # probabilities of the order below

    def add(self, level: CountedLevel | None, counts: Ints) -> None:
        """Add the unigrams (None) or the n-grams of the next length, with their adjusted `counts`."""
        discounts, estimated = modified_discounts(counts)
        self.discounts.append(discounts)
        self.estimated.append(estimated)
        discounted = np.array([0.0, *discounts])[np.minimum(counts, 3)]
        if level is None:
            parents, contexts = np.zeros(len(counts), np.int32), 1
            lower = np.broadcast_to(self._lower, len(counts))
        else:
            parents, contexts = level.parents, len(self._lower)
            lower = self._lower[level.suffixes]
        totals = np.bincount(parents, weights=counts, minlength=contexts)
        kept_back = np.bincount(parents, weights=discounted, minlength=contexts)
        has_children = totals > 0
        # What is never a context, or was never followed by anything, leaves all to the shorter context.
        gamma = np.divide(kept_back, totals, out=np.ones(contexts), where=has_children)
        self._lower = (counts - discounted) / totals[parents] + gamma[parents] * lower
        if level is not None:
            dtype = np.uint16 if self._vocab_size <= 1 << 16 else np.uint32
            self._tokens.append(level.tokens.astype(dtype))
            ends = np.cumsum(np.bincount(parents, minlength=contexts), dtype=np.uint32)
            self._first_child.append(np.concatenate([np.zeros(1, np.uint32), ends]))
            self._backoffs.append(np.log(gamma).astype(np.float32))
        self._logprobs.append(np.log(self._lower).astype(np.float32))

    def levels(self) -> list[NgramLevel]:
        """All levels from the unigrams up."""
        none = (np.empty(0, np.uint16), np.empty(0, np.float32), np.empty(0, np.uint32))
        highest = len(self._logprobs) - 1
        return [
            NgramLevel(
                tokens=self._tokens[k - 1] if k else none[0],
                logprobs=logprobs,
                backoffs=self._backoffs[k] if k < highest else none[1],
                first_child=self._first_child[k] if k < highest else none[2],
            )
            for k, logprobs in enumerate(self._logprobs)
        ]
