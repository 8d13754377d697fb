"""Classifiers that are counted or solved rather than trained by gradient steps, predicting from plain arrays.

Nothing but numpy is imported, so a prediction starts at once. All arithmetic is float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CHUNK_ELEMENTS = 1 << 22  # of float64 at a time while rows of weights are gathered: 32 MiB


class SparseRows(NamedTuple):
    """Features of several rows: `columns` (total,), distinct within a row, `values` (total,), and `lengths` (rows,)."""

    columns: Ints
    values: Ints | Floats
    lengths: Ints

    @property
    def owners(self) -> Ints:
        """(total,) the row of each value."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


def softmax(scores: Floats) -> Floats:
    """Probabilities (rows, classes) of `scores` (rows, classes)."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result


def weighted_sums(rows: SparseRows, weights: Floats) -> Floats:
    """The product (rows, scores) of sparse rows and `weights` (features, scores), a few rows at a time."""
    result = np.zeros((len(rows.lengths), weights.shape[1]))
    ends = np.cumsum(rows.lengths)
    limit = max(1, _CHUNK_ELEMENTS // weights.shape[1])
    first = 0
    while first < len(ends):
        begin = int(ends[first] - rows.lengths[first])
        last = max(first + 1, int(np.searchsorted(ends, begin + limit, side="right")))
        part = slice(begin, int(ends[last - 1]))
        starts = ends[first:last] - rows.lengths[first:last] - begin
        filled = np.flatnonzero(rows.lengths[first:last])  # reduceat has no empty sums
        if len(filled):
            terms = weights[rows.columns[part]] * rows.values[part, None]
            result[first + filled] = np.add.reduceat(terms, starts[filled], axis=0)
        first = last
    return result


@dataclass(frozen=True)
class Majority:
    """Every item has the shares that the classes had in training; `class_counts` (classes,)."""

    class_counts: Ints

    @classmethod
    def fit(cls, labels: Ints, num_classes: int) -> Majority:
        """Count the labels (items,)."""
        return cls(np.bincount(labels, minlength=num_classes))

    @property
    def num_parameters(self) -> int:
        """One share a class."""
        return len(self.class_counts)

    def probabilities(self, rows: SparseRows) -> Floats:
        """(rows, classes), the same in every row."""
        return np.tile(self.class_counts / self.class_counts.sum(), (len(rows.lengths), 1))


@dataclass(frozen=True)
class NaiveBayes:
    """Multinomial naive Bayes over features that are there or not (Wang and Manning 2012, section 2.1), alpha = 1.

    `class_counts` (classes,) training items by class. The number of training items of a class that hold a feature is
    stored where it is not zero, feature by feature: `starts` (features + 1,) into `classes` and `counts`. With T_c the
    sum of class c's counts over F features, a feature says log (count + 1) / (T_c + F); the part that depends on the
    count is sparse, so the dense (features, classes) table never exists. A class without an item gets probability 0.
    """

    class_counts: Ints
    starts: Ints
    classes: Ints
    counts: Ints

    @classmethod
    def fit(cls, rows: SparseRows, labels: Ints, *, num_features: int, num_classes: int) -> NaiveBayes:
        """Count; `rows.values` do not matter."""
        places = rows.columns * num_classes + np.repeat(labels, rows.lengths)
        found, counts = np.unique(places, return_counts=True)
        features, classes = np.divmod(found, num_classes)
        starts = np.searchsorted(features, np.arange(num_features + 1))
        return cls(np.bincount(labels, minlength=num_classes), starts, classes, counts.astype(np.int64))

    @property
    def num_parameters(self) -> int:
        """Stored counts."""
        return len(self.class_counts) + len(self.counts)

    def probabilities(self, rows: SparseRows) -> Floats:
        """(rows, classes); `rows.values` do not matter: a feature is there or not."""
        num_classes, num_features = len(self.class_counts), len(self.starts) - 1
        lengths = np.diff(self.starts)[rows.columns]
        firsts = np.cumsum(lengths) - lengths
        places = np.repeat(self.starts[rows.columns] - firsts, lengths) + np.arange(int(lengths.sum()))
        owners = np.repeat(rows.owners, lengths)
        evidence = np.bincount(
            owners * num_classes + self.classes[places],
            weights=np.log(self.counts + 1.0)[places],
            minlength=len(rows.lengths) * num_classes,
        ).reshape(-1, num_classes)
        totals = np.bincount(self.classes, weights=self.counts, minlength=num_classes) + num_features
        seen = np.flatnonzero(self.class_counts)
        scores = np.log(self.class_counts[seen] / self.class_counts.sum()) + evidence[:, seen]
        scores = scores - rows.lengths[:, None] * np.log(np.maximum(totals[seen], 1))
        result = np.zeros((len(rows.lengths), num_classes))
        result[:, seen] = softmax(scores)
        return result


@dataclass(frozen=True)
class Linear:
    """A linear model over tf-idf: (1 + log tf) x idf, rows scaled to length 1, then softmax.

    `idf` (features,); `weights` (features, scores) and `intercept` (scores,), one score for two classes (the second
    one's log odds) and else one a class. `class_counts` (classes,) training items by class: a class without one has
    probability 0, and a row without any feature says nothing, so it gets the shares of the classes.
    """

    idf: Floats
    weights: Floats
    intercept: Floats
    class_counts: Ints

    @property
    def num_parameters(self) -> int:
        """Weights, intercepts and idf."""
        return self.idf.size + self.weights.size + self.intercept.size

    def probabilities(self, rows: SparseRows) -> Floats:
        """(rows, classes); `rows.values` say how often each feature occurs in each row."""
        scores = weighted_sums(tf_idf(rows, self.idf), self.weights) + self.intercept
        seen = np.flatnonzero(self.class_counts)
        if len(seen) == 2:
            scores = np.hstack([np.zeros_like(scores), scores])
        result = np.zeros((len(rows.lengths), len(self.class_counts)))
        result[:, seen] = softmax(scores)
        result[rows.lengths == 0] = self.class_counts / self.class_counts.sum()
        return result


def inverse_document_frequencies(rows: SparseRows, num_features: int) -> Floats:
    """(features,) log((1 + rows) / (1 + rows that hold the feature)) + 1."""
    found = np.bincount(rows.columns, minlength=num_features)
    result: Floats = np.log((1 + len(rows.lengths)) / (1 + found)) + 1
    return result


def tf_idf(rows: SparseRows, idf: Floats) -> SparseRows:
    """Sublinear tf-idf of counted rows, each row scaled to Euclidean length 1."""
    values = (1 + np.log(rows.values)) * idf[rows.columns]
    owners = rows.owners
    norms = np.sqrt(np.bincount(owners, weights=values**2, minlength=len(rows.lengths)))
    return SparseRows(rows.columns, values / norms[owners], rows.lengths)
