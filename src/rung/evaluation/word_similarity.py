"""Word vectors against people: the rank correlation of cosines with human scores of similarity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import spearmanr

from rung.data.word_sets import SimilaritySet
from rung.nets.word_vectors import Floats, WordVectors, unit_rows
from rung.records import Interval, Record

LEVEL = 0.95
_FEWEST = 4
"""Pairs below which a rank correlation says nothing and its interval does not exist."""
POLICY = (
    "words as written, else in lower case, else capitalised; a term of several words is the mean of their vectors; "
    "a pair with an unknown word is skipped"
)


@dataclass(frozen=True)
class SimilarityResult:
    """`record`: Spearman's rho over the `covered` of all `pairs`; `composed`: terms that n-grams gave a vector to."""

    record: Record
    pairs: int
    covered: int
    composed: int


def word_similarity(vectors: WordVectors, test: SimilaritySet) -> SimilarityResult:
    """Spearman's rank correlation between human scores and cosines of the pairs that are known.

    The interval is Fisher's transformation with the variance (1 + rho^2 / 2) / (n - 3) of Bonett and Wright 2000,
    "Sample size requirements for estimating Pearson, Kendall and Spearman correlations", equation 4.
    """
    terms = {term: _vector(vectors, term) for pair in test.pairs for term in pair}
    rows = [row for row, pair in enumerate(test.pairs) if all(terms[term] is not None for term in pair)]
    composed = sum(vector is not None and _whole(vectors, term) is None for term, vector in terms.items())
    rho, reason = None, f"only {len(rows)} of {len(test.pairs)} pairs are known"
    if len(rows) >= _FEWEST:
        left, right = (
            unit_rows(np.stack([vector for row in rows if (vector := terms[test.pairs[row][side]]) is not None]))
            for side in range(2)
        )
        cosines, human = (left * right).sum(axis=1), np.array([test.scores[row] for row in rows])
        if np.ptp(cosines) > 0 and np.ptp(human) > 0:
            rho = float(spearmanr(cosines, human).statistic)
        else:
            reason = "all scores or all cosines are equal"
    record = Record(
        name=f"similarity {test.name}",
        value=rho,
        unit="Spearman's rho",
        n=len(rows),
        interval=None if rho is None else _interval(rho, len(rows)),
        signature=f"cosine; {POLICY}; {len(rows)} of {len(test.pairs)} pairs known",
        data_sha256=test.sha256,
        not_measured=reason if rho is None else None,
    )
    return SimilarityResult(record, len(test.pairs), len(rows), composed)


def _whole(vectors: WordVectors, term: str) -> str | None:
    """The word of the vocabulary that `term` is, where it is one."""
    return vectors.spelled(term) or vectors.spelled("_".join(term.split()))


def _vector(vectors: WordVectors, term: str) -> Floats | None:
    if (word := _whole(vectors, term)) is not None:
        return vectors.vector(word)
    parts = [_part(vectors, part) for part in term.split()]
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    mean: Floats = np.mean(known, axis=0, dtype=np.float32)
    return mean


def _part(vectors: WordVectors, word: str) -> Floats | None:
    if (spelled := vectors.spelled(word)) is not None:
        return vectors.vector(spelled)
    return None if vectors.subwords is None else vectors.subwords.vector(word)


def _interval(rho: float, pairs: int) -> Interval:
    if abs(rho) >= 1:
        return Interval(low=rho, high=rho, level=LEVEL, method="degenerate: the ranks agree entirely")
    spread = -float(ndtri((1 - LEVEL) / 2)) * math.sqrt((1 + rho**2 / 2) / (pairs - 3))
    low, high = (math.tanh(math.atanh(rho) + side * spread) for side in (-1, 1))
    return Interval(low=low, high=high, level=LEVEL, method="Fisher z, variance of Bonett and Wright (2000)")
