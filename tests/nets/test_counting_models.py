"""Counted and solved classifiers against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB

from rung.nets import counting
from rung.nets.counting import (
    Linear,
    Majority,
    NaiveBayes,
    SparseRows,
    inverse_document_frequencies,
    tf_idf,
    weighted_sums,
)


def problem(classes: int, rows: int = 60, features: int = 25) -> tuple[csr_array, SparseRows, np.ndarray]:
    random = np.random.default_rng(classes)
    dense = random.poisson(0.3, (rows, features))
    dense[:, 0] = 1  # no empty row here
    matrix = csr_array(dense)
    labels = random.integers(0, classes, rows)
    labels[:classes] = np.arange(classes)
    return matrix, SparseRows(matrix.indices.astype(np.int64), matrix.data, np.diff(matrix.indptr)), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_naive_bayes_equals_scikit_learn(classes: int) -> None:
    matrix, rows, labels = problem(classes)
    binary = matrix.copy()
    binary.data = np.ones_like(binary.data)
    theirs = MultinomialNB(alpha=1.0).fit(binary, labels)
    ours = NaiveBayes.fit(rows, labels, num_features=matrix.shape[1], num_classes=classes)
    np.testing.assert_allclose(ours.probabilities(rows), theirs.predict_proba(binary), atol=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_linear_equals_scikit_learn(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, rows, labels = problem(classes)
    transformer = TfidfTransformer(sublinear_tf=True).fit(matrix)
    theirs = LogisticRegression(C=10.0).fit(transformer.transform(matrix), labels)
    idf = inverse_document_frequencies(rows, matrix.shape[1])
    np.testing.assert_allclose(idf, transformer.idf_, rtol=1e-14)
    counts = np.bincount(labels, minlength=classes)
    ours = Linear(idf, theirs.coef_.T.copy(), theirs.intercept_, counts)
    expected = theirs.predict_proba(transformer.transform(matrix))
    np.testing.assert_allclose(ours.probabilities(rows), expected, atol=1e-12)
    monkeypatch.setattr(counting, "_CHUNK_ELEMENTS", 7)
    np.testing.assert_allclose(ours.probabilities(rows), expected, atol=1e-12)


def test_majority_gives_the_shares_of_labels() -> None:
    model = Majority.fit(np.array([2, 0, 2, 2]), 4)
    empty = np.empty(0, np.int64)
    found = model.probabilities(SparseRows(empty, empty, np.zeros(3, np.int64)))
    np.testing.assert_allclose(found, [[0.25, 0, 0.75, 0]] * 3)


def test_a_row_without_features_gets_the_shares_of_labels() -> None:
    matrix, rows, labels = problem(3)
    shares = np.bincount(labels) / len(labels)
    empty = SparseRows(np.empty(0, np.int64), np.empty(0, np.int64), np.zeros(1, np.int64))
    bayes = NaiveBayes.fit(rows, labels, num_features=matrix.shape[1], num_classes=3)
    np.testing.assert_allclose(bayes.probabilities(empty)[0], shares)
    idf = inverse_document_frequencies(rows, matrix.shape[1])
    linear = Linear(idf, np.ones((matrix.shape[1], 3)), np.array([0.0, 5.0, 1.0]), np.bincount(labels))
    np.testing.assert_allclose(linear.probabilities(empty)[0], shares)


def test_a_class_without_items_is_impossible() -> None:
    matrix, rows, labels = problem(3)
    with_gap = np.where(labels == 1, 3, labels)
    found = NaiveBayes.fit(rows, with_gap, num_features=matrix.shape[1], num_classes=4).probabilities(rows)
    without = NaiveBayes.fit(rows, labels, num_features=matrix.shape[1], num_classes=3).probabilities(rows)
    np.testing.assert_allclose(found[:, 1], 0)
    np.testing.assert_allclose(found[:, [0, 3, 2]], without)


def test_weighted_sums_equal_a_dense_product_with_empty_rows_anywhere() -> None:
    dense = np.random.default_rng(0).poisson(0.2, (40, 9)) * 1.5
    dense[[0, 7, 8, 39]] = 0
    matrix = csr_array(dense)
    rows = SparseRows(matrix.indices.astype(np.int64), matrix.data, np.diff(matrix.indptr))
    weights = np.random.default_rng(1).normal(size=(9, 3))
    np.testing.assert_allclose(weighted_sums(rows, weights), dense @ weights, atol=1e-14)
    assert tf_idf(rows, np.ones(9)).lengths[0] == 0
