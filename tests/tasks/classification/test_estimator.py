"""`rung.TextClassifier` as scikit-learn uses it, and the published figures through it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

import rung
from rung.errors import DataError, UsageError
from rung.tasks.classification.estimator import TextClassifier

TEXTS = [f"good fine nice {number}" for number in range(30)] + [f"bad poor sad {number}" for number in range(30)]
LABELS = ["pos"] * 30 + ["neg"] * 30


def test_fits_predicts_and_keeps_a_folder() -> None:
    fitted = TextClassifier("naive-bayes").fit(TEXTS, LABELS)
    assert fitted.classes_.tolist() == ["neg", "pos"]
    assert fitted.predict(["a nice one", "a sad one"]).tolist() == ["pos", "neg"]
    assert np.allclose(fitted.predict_proba(TEXTS).sum(axis=1), 1)
    assert fitted.score(TEXTS, LABELS) > 0.95
    loaded = rung.load(fitted.folder)
    assert loaded.classify("a nice one")[0].label == "pos"


def test_works_with_scikit_learns_tools() -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = Pipeline([("lower", lower), ("rung", TextClassifier("linear", seed=3))])
    scores = cross_val_score(pipeline, TEXTS, LABELS, cv=3)
    assert scores.mean() > 0.9
    copy = clone(pipeline.named_steps["rung"])
    assert copy.get_params() == pipeline.named_steps["rung"].get_params()


def test_labels_keep_their_type() -> None:
    numbers = [1 if label == "pos" else 7 for label in LABELS]
    assert TextClassifier("linear").fit(TEXTS, numbers).predict(["nice"]).tolist() == [1]


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(DataError, match="only one class"):
        TextClassifier().fit(TEXTS[:5], ["a"] * 5)
    with pytest.raises(DataError, match="do not match"):
        TextClassifier().fit(TEXTS, LABELS[:-1])
    with pytest.raises(DataError, match="no texts"):
        TextClassifier().fit([], [])
    with pytest.raises(DataError, match="1 labels are missing"):
        TextClassifier().fit(TEXTS, [None, *LABELS[1:]])
    with pytest.raises(DataError, match="1 labels are missing"):
        TextClassifier().fit(TEXTS, [float("nan"), *([0.0, 1.0] * 30)[1:]])
    with pytest.raises(DataError, match="not one a text"):
        TextClassifier().fit(TEXTS, np.array(LABELS).reshape(-1, 1))
    with pytest.raises(DataError, match="of type NoneType, not str"):
        TextClassifier().fit([None, *TEXTS[1:]], LABELS)
    with pytest.raises(DataError, match="one string is not a list"):
        TextClassifier("majority").fit(TEXTS, LABELS).predict("a nice one")
    with pytest.raises(NotFittedError):
        TextClassifier().predict(TEXTS)
    with pytest.raises(UsageError, match="no rung called 'ltsm'; did you mean 'lstm'"):
        TextClassifier("ltsm").fit(TEXTS, LABELS)
    with pytest.raises(UsageError, match="no setting depth"):
        TextClassifier("naive-bayes", settings={"depth": 3}).fit(TEXTS, LABELS)


def test_naive_bayes_reaches_the_published_figure_on_movie_reviews(rung_data: Path) -> None:
    """Wang and Manning 2012: 77.9 by ten-fold cross-validation; reference/evaluation.md, 7.1: within 0.8."""
    lines = (rung_data / "mr" / "all.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    folds = StratifiedKFold(10, shuffle=True, random_state=0)
    estimator = TextClassifier("naive-bayes", validation_fraction=0.01, settings={"ngrams": [1]})
    scores = cross_val_score(estimator, [row["text"] for row in rows], [row["label"] for row in rows], cv=folds)
    assert 100 * scores.mean() == pytest.approx(77.9, abs=0.8)
