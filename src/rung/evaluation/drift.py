"""How far a new text is from an old one, beside how far two halves of the old one are from each other.

A divergence between two samples is never 0, and for words it is large even between samples of one text; so each figure
stands beside its null: the same figure between random, disjoint parts of the old text of the same size. Parts are
drawn by whole units (documents, or the sources they were cut from), because words come in bursts: drawing single words
would call every new topic a drift (Kilgarriff 2001, "Comparing corpora").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from rung.errors import EvaluationError
from rung.evaluation.intervals import LEVEL
from rung.records import Interval, Record

DRAWS = 200
FEWEST_UNITS = 4
_CHUNK = 25  # draws whose distributions are held in memory at a time
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_TELLING = 12
_RARE = 5  # a word that both texts together hold less often is no evidence

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class UnitCounts:
    """How often each type (token or word) occurs in each unit: a sparse matrix (units, types)."""

    matrix: csr_matrix

    @classmethod
    def of(cls, units: NDArray[np.int64], types: NDArray[np.int64], *, num_types: int) -> UnitCounts:
        """Count occurrences: occurrence i is of type `types[i]`, in unit `units[i]` (numbered from 0)."""
        shape = (int(units.max(initial=-1)) + 1, num_types)
        counts = csr_matrix((np.ones(len(types)), (units, types)), shape=shape)
        counts.sum_duplicates()
        return cls(counts)

    def joined(self, other: UnitCounts) -> UnitCounts:
        """The units of both, one after the other."""
        return UnitCounts(vstack([self.matrix, other.matrix], format="csr"))

    @property
    def sizes(self) -> Floats:
        """Occurrences in each unit, (units,)."""
        return np.asarray(self.matrix.sum(axis=1), dtype=np.float64).reshape(-1)

    @property
    def totals(self) -> Floats:
        """Occurrences of each type, (types,)."""
        return np.asarray(self.matrix.sum(axis=0), dtype=np.float64).reshape(-1)


def jensen_shannon(first: Floats, second: Floats) -> Floats:
    """The Jensen-Shannon divergence in bits of counts (..., types): 0 for equal shares, 1 for nothing in common.

    Lin 1991, equation 4.1 with equal weights.
    """
    p, q = (counts / counts.sum(axis=-1, keepdims=True) for counts in (first, second))
    divergence: Floats = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return divergence.clip(min=0.0)


def unseen_share(first: Floats, second: Floats) -> Floats:
    """The share of the occurrences in `second` (..., types) whose type does not occur in `first`."""
    share: Floats = (second * (first == 0)).sum(axis=-1) / second.sum(axis=-1)
    return share


def drift(
    old: UnitCounts,
    new: UnitCounts,
    measure: Callable[[Floats, Floats], Floats],
    *,
    name: str,
    unit: str,
    seed: int = 0,
) -> tuple[Record, Record]:
    """`measure` between old and new text, and its null: the same between two parts of the old text.

    `measure` maps counts (..., types) of a first and a second text to (...,) numbers. Each of 200 draws takes three
    samples by whole units, of about equal size: two disjoint ones of the old text and one of the new. Values are means
    over draws, intervals hold 95 % of the draws. Raises EvaluationError when either text has fewer than 4 units.
    """
    for which, counts in (("old", old), ("new", new)):
        if len(counts.sizes) < FEWEST_UNITS:
            raise EvaluationError(
                f"the {which} text has {len(counts.sizes)} document(s): too few to tell drift from chance",
                hint=f"give at least {FEWEST_UNITS} documents",
            )
    size = min(old.sizes.sum() / 2, new.sizes.sum())
    generator = np.random.default_rng(seed)
    between, within = np.empty(DRAWS), np.empty(DRAWS)
    for start in range(0, DRAWS, _CHUNK):
        rows = slice(start, min(start + _CHUNK, DRAWS))
        first, second = _two_samples(old, size, rows.stop - rows.start, generator)
        other, _ = _two_samples(new, size, rows.stop - rows.start, generator)
        within[rows], between[rows] = measure(first, second), measure(first, other)
    how = f"{DRAWS} draws of whole units, about {size:,.0f} occurrences each"
    return (
        _record(name, unit, between, len(new.sizes), how),
        _record(f"{name}, old text against itself", unit, within, len(old.sizes), how),
    )


def _two_samples(counts: UnitCounts, size: float, draws: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Counts (draws, types) of two disjoint samples of whole units, each of about `size` occurrences."""
    units = len(counts.sizes)
    chosen = np.zeros((2, draws, units))
    for draw in range(draws):
        order = generator.permutation(units)
        middles = np.cumsum(counts.sizes[order]) - counts.sizes[order] / 2
        places = np.where(middles <= size, 0, np.where(middles <= 2 * size, 1, 2))
        places[0] = 0  # a unit longer than the sample is still one
        if not (places == 1).any():
            places[-1] = 1
        for sample in (0, 1):
            chosen[sample, draw, order[places == sample]] = 1
    first, second = ((counts.matrix.T @ part.T).T for part in chosen)
    return first, second


def _record(name: str, unit: str, draws: Floats, n: int, how: str) -> Record:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    interval = Interval(low=float(low), high=float(high), level=LEVEL, method=how)
    return Record(name=name, value=float(draws.mean()), unit=unit, n=n, interval=interval, signature=how)


def _entropy(shares: Floats) -> Floats:
    """In bits, over the last dimension."""
    logs = np.log2(shares, where=shares > 0, out=np.zeros_like(shares))
    entropy: Floats = -(shares * logs).sum(axis=-1)
    return entropy


def words(text: str) -> list[str]:
    """The words of `text` in lower case: letters, with apostrophes between them."""
    return [word.casefold() for word in _WORD.findall(text)]


@dataclass(frozen=True)
class TellingWord:
    """A word that one text uses more than the other: `z` standard errors more; occurrences in each."""

    word: str
    z: float
    in_new: int
    in_old: int


def telling_words(
    vocabulary: Sequence[str], old: Floats, new: Floats, *, count: int = _TELLING
) -> tuple[list[TellingWord], list[TellingWord]]:
    """The `count` words that tell the new text, and those that tell the old one, the most telling first.

    By the z-score of the log-odds ratio with a Dirichlet prior from both texts together (Monroe, Colaresi and Quinn
    2008, "Fightin' Words", equations 16, 18 and 22): frequent words need a large difference, rare ones do not win by
    chance.
    """
    prior = old + new
    in_new, in_old = new + prior, old + prior
    of_new, of_old, all_prior = new.sum(), old.sum(), prior.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        log_odds = np.log(in_new / (of_new + all_prior - in_new)) - np.log(in_old / (of_old + all_prior - in_old))
        z = log_odds / np.sqrt(1 / in_new + 1 / in_old)
    z[prior < _RARE] = 0.0
    order = np.lexsort((np.arange(len(z)), -z))

    def told(places: Iterable[int]) -> list[TellingWord]:
        return [TellingWord(vocabulary[i], float(z[i]), int(new[i]), int(old[i])) for i in places if z[i] != 0]

    return told(order[:count].tolist()), told(order[::-1][:count].tolist())


def count_words(texts: Iterable[tuple[int, str]], index: dict[str, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Units and word numbers of every word occurrence in (unit, text); `index` numbers words and grows on the way."""
    units: list[NDArray[np.int64]] = []
    types: list[NDArray[np.int64]] = []
    for unit, text in texts:
        counted = Counter(words(text))
        numbers = np.array([index.setdefault(word, len(index)) for word in counted], dtype=np.int64)
        repeats = np.fromiter(counted.values(), dtype=np.int64, count=len(counted))
        types.append(np.repeat(numbers, repeats))
        units.append(np.full(int(repeats.sum()), unit, dtype=np.int64))
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate([empty, *units]), np.concatenate([empty, *types])
