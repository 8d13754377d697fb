"""Any rung as a scikit-learn estimator: `TextClassifier(net="lstm").fit(texts, labels)`."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from rung.data.label_split import make_split
from rung.data.labelled import LabelledItems, item_ids
from rung.errors import DataError, UsageError
from rung.progress import SILENT
from rung.tasks.classification.classifier import load_classifier
from rung.tasks.classification.rungs import make_rung
from rung.tasks.classification.task import ClassificationTask


class TextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """One rung of the ladder, fitted to texts and labels in memory.

    `net` is the name of a rung (`naive-bayes`, `linear`, `feedforward`, `cnn`, `lstm`, ...). `minutes` bounds the time
    of `fit`; None takes the rung's defaults and reads no clock. `validation_fraction` of the texts is held out for
    choices and early stopping, as in scikit-learn's own estimators. `settings` replace values of the rung's plan.
    """

    def __init__(
        self,
        net: str = "linear",
        *,
        minutes: float | None = None,
        seed: int = 0,
        threads: int | None = None,
        validation_fraction: float = 0.1,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.net = net
        self.minutes = minutes
        self.seed = seed
        self.threads = threads
        self.validation_fraction = validation_fraction
        self.settings = settings

    def fit(self, X: Sequence[str], y: Sequence[Any]) -> Self:  # noqa: N803 - scikit-learn's names
        """Fit to texts `X` and labels `y`.

        Raises DataError when they do not go together, UsageError for an unknown rung or setting.
        """
        texts, labels = _texts(X), _labels(y)
        if len(texts) != len(labels):
            raise DataError(f"{len(texts):,} texts and {len(labels):,} labels do not match")
        if not texts:
            raise DataError("there are no texts to learn from", where="X")
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError("there is only one class, so nothing can be learned", where=f"y: {self.classes_.tolist()}")
        task = self._task(texts, numbers.astype(np.int64))
        rung = make_rung(self.net)
        plan = rung.plan(task, None if self.minutes is None else 60 * self.minutes, seed=self.seed)
        if unknown := set(self.settings or ()) - set(plan):
            raise UsageError(
                f"the rung '{self.net}' has no setting {', '.join(sorted(unknown))}",
                hint=f"its settings are: {', '.join(sorted(plan))}",
            )
        parent = tempfile.mkdtemp(prefix="rung-")
        weakref.finalize(self, shutil.rmtree, parent, ignore_errors=True)  # gone with the estimator
        self._folder = Path(parent) / "rung"
        items = np.arange(len(task.items["train"]))
        self.report_ = rung.fit(
            task, {**plan, **(self.settings or {})}, items=items, seed=self.seed, folder=self._folder, progress=SILENT
        )
        self._classifier = load_classifier(self._folder)
        return self

    @property
    def folder(self) -> Path:
        """The run folder of the fitted rung; copy it to keep it."""
        check_is_fitted(self, "classes_")
        return self._folder

    def predict_proba(self, X: Sequence[str]) -> NDArray[np.float64]:  # noqa: N803
        """(texts, classes) probabilities, in the order of `classes_`."""
        check_is_fitted(self, "classes_")
        return self._classifier.predict(_texts(X), batch_size=256).probabilities

    def predict(self, X: Sequence[str]) -> NDArray[Any]:  # noqa: N803
        """(texts,) labels."""
        best = self.predict_proba(X).argmax(axis=1)  # first: it tells when nothing was fitted
        chosen: NDArray[Any] = self.classes_[best]
        return chosen

    def _task(self, texts: list[str], numbers: NDArray[np.int64]) -> ClassificationTask:
        names = tuple(str(label) for label in self.classes_)
        ids = item_ids(texts, [names[number] for number in numbers])
        order = np.argsort(ids)
        items = LabelledItems(
            [ids[i] for i in order], [texts[i] for i in order], numbers[order], names
        )  # by id, as everywhere: the order of rows does not matter
        split = make_split(items, seed=self.seed, test_share=0.0, valid_share=self.validation_fraction)
        parts = {"train": items.take(split.train), "valid": items.take(split.valid), "test": items.take(split.test)}
        return ClassificationTask(parts, threads=self.threads or os.cpu_count() or 1)  # type: ignore[arg-type]

    def __sklearn_tags__(self) -> Any:
        """Inputs are texts, not arrays of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags


def _texts(values: Sequence[Any]) -> list[str]:
    """Texts as plain strings. Raises DataError for one string in place of many, and for anything that is no text."""
    if isinstance(values, str):
        raise DataError("one string is not a list of texts", where="X", hint=f"give [{values[:20]!r}, ...]")
    for number, value in enumerate(values):
        if not isinstance(value, str):
            kind = type(value).__name__
            raise DataError(f"a text is of type {kind}, not str", where=f"X[{number}]", hint="give a list of strings")
    return [str(value) for value in values]


def _labels(values: Sequence[Any]) -> NDArray[Any]:
    """Labels as an array. Raises DataError where one is missing, or there are several a text."""
    labels = np.asarray(values)
    if labels.ndim != 1:
        raise DataError(f"labels of shape {labels.shape} are not one a text", where="y", hint="give a flat list")
    missing = [number for number, label in enumerate(labels.tolist()) if label is None or label != label]  # noqa: PLR0124
    if missing:
        raise DataError(f"{len(missing):,} labels are missing", where=f"y[{missing[0]}]", hint="leave those texts out")
    return labels
