"""Metrics of classifiers, each a record; every value equals scikit-learn's.

Failed items (a prompted model whose answer names no class) count as follows. Labels: the item is wrong, and predicted
as none of the classes, which lowers recall but no class's precision. Probabilities: an answer that cannot be read says
nothing, so it stands for the uniform distribution in log-loss, Brier score, AUROC and average precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri

from rung.errors import EvaluationError
from rung.evaluation.intervals import LEVEL, intervals
from rung.evaluation.proportions import wilson
from rung.evaluation.summed import SummedScores
from rung.records import Interval, ItemScores, Record

FAILED = -1
CLIP = float(np.finfo(np.float64).eps)
"""Probabilities are kept this far from 0 and 1 before a logarithm, as scikit-learn does: a loss of at most 36 nats."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Classified:
    """Labelled items and what a classifier said of them.

    `labels` (n,) from 0 to classes - 1; `probabilities` (n, classes), rows summing to 1; `failed` (n,), True where no
    answer could be read. Raises EvaluationError for shapes, labels or probabilities that cannot be.
    """

    ids: list[str]
    labels: Ints
    probabilities: Floats
    failed: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        count = len(self.ids)
        shape = self.probabilities.shape
        if count == 0 or self.labels.shape != (count,) or len(shape) != 2 or shape[0] != count or shape[1] < 2:
            raise EvaluationError(f"{count} ids, labels {self.labels.shape} and probabilities {shape} do not match")
        if self.failed is not None and self.failed.shape != (count,):
            raise EvaluationError(f"failures {self.failed.shape} do not match {count} items")
        if self.labels.min() < 0 or self.labels.max() >= shape[1]:
            raise EvaluationError(f"labels must lie between 0 and {shape[1] - 1}")
        answered = self.probabilities[~self.failures]
        if not (answered >= 0).all() or not np.allclose(answered.sum(axis=1), 1, rtol=0, atol=1e-6):
            raise EvaluationError("the probabilities of each item must be finite, not negative, and sum to 1")

    @property
    def classes(self) -> int:
        """How many classes there are, whether or not each occurs among the items."""
        return int(self.probabilities.shape[1])

    @cached_property
    def failures(self) -> NDArray[np.bool_]:
        """(n,) True where no answer could be read."""
        return np.zeros(len(self.ids), dtype=np.bool_) if self.failed is None else self.failed

    @cached_property
    def stated(self) -> Floats:
        """(n, classes) the probabilities, uniform where the classifier failed."""
        return np.where(self.failures[:, None], 1 / self.classes, self.probabilities)

    @cached_property
    def predicted(self) -> Ints:
        """(n,) the most probable class, the first of equals; FAILED where no answer could be read."""
        best = self.stated.argmax(axis=1).astype(np.int64)
        return np.where(self.failures, FAILED, best)

    @cached_property
    def correct(self) -> ItemScores:
        """1 for each item that was classified rightly, else 0."""
        right = (self.predicted == self.labels).astype(np.float64)
        return ItemScores(self.ids, right, np.ones(len(self.ids)))

    @cached_property
    def negative_log_likelihood(self) -> ItemScores:
        """Nats by item: -ln of the probability of the true class, clipped at `CLIP`."""
        true = self.stated[np.arange(len(self.ids)), self.labels]
        return ItemScores(self.ids, -np.log(np.clip(true, CLIP, 1 - CLIP)), np.ones(len(self.ids)))

    @cached_property
    def squared_error(self) -> ItemScores:
        """Brier's score by item: the sum over classes of (probability - truth)^2, halved when there are two classes."""
        truth = np.eye(self.classes)[self.labels]
        squares = ((self.stated - truth) ** 2).sum(axis=1)
        return ItemScores(self.ids, squares / 2 if self.classes == 2 else squares, np.ones(len(self.ids)))

    def summed(self, metric: str) -> SummedScores:
        """The scores of one of `DECISIVE_METRICS` in the form that comparisons take. Raises EvaluationError."""
        if metric == "accuracy":
            return SummedScores.of_items(self.correct)
        if metric not in _OF_COUNTS:
            raise EvaluationError(
                f"no verdict can rest on {metric!r}", hint=f"choose from {', '.join(DECISIVE_METRICS)}"
            )
        classes = self.classes
        said = np.where(self.predicted == FAILED, classes, self.predicted)
        cells, codes = np.unique(self.labels * (classes + 1) + said, return_inverse=True)
        actual = np.eye(classes)[cells // (classes + 1)]
        predicted = np.eye(classes + 1)[cells % (classes + 1)][:, :classes]
        rows = np.concatenate([actual * predicted, predicted, actual], axis=1)
        return SummedScores(self.ids, codes.reshape(-1).astype(np.int64), rows, _OF_COUNTS[metric])


@dataclass(frozen=True)
class PerClass:
    """By class (classes,): precision, recall and F1, NaN where undefined, and support (items of the class)."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: Ints


def macro_f1(totals: Floats) -> Floats:
    """Mean F1 over the classes that occur among labels or predictions, from (..., 3 classes) totals.

    The totals are true positives, predicted and actual items of each class. A class that occurs in neither has no F1.
    """
    hits, predicted, actual = _thirds(totals)
    there = predicted + actual > 0
    f1 = np.divide(2 * hits, predicted + actual, out=np.zeros_like(hits), where=there)
    mean: Floats = f1.sum(axis=-1) / there.sum(axis=-1)
    return mean


def matthews_correlation(totals: Floats) -> Floats:
    """Matthews' correlation for any number of classes (Gorodkin 2004), from totals as for `macro_f1`.

    0 where labels or predictions have one value only. Failed items count as predictions of a class of their own.
    """
    hits, predicted, actual = _thirds(totals)
    count = actual.sum(axis=-1)
    failed = count - predicted.sum(axis=-1)
    covariance = hits.sum(axis=-1) * count - (predicted * actual).sum(axis=-1)
    of_labels = count**2 - (actual**2).sum(axis=-1)
    of_predictions = count**2 - (predicted**2).sum(axis=-1) - failed**2
    product = of_labels * of_predictions
    coefficient: Floats = np.divide(covariance, np.sqrt(product), out=np.zeros_like(covariance), where=product > 0)
    return coefficient


_OF_COUNTS = {"macro_f1": macro_f1, "mcc": matthews_correlation}
DECISIVE_METRICS = ("accuracy", *_OF_COUNTS)
"""Metrics on which a verdict can rest: all are larger when better."""


def records(classified: Classified, *, data_sha256: str | None = None, seed: int = 0) -> list[Record]:
    """All metrics of labels and probabilities with their 95 % intervals."""
    right = int(classified.correct.values.sum())
    count = len(classified.ids)
    f1, correlation = classified.summed("macro_f1"), classified.summed("mcc")
    losses, squares = classified.negative_log_likelihood, classified.squared_error
    of_f1, of_correlation = intervals([f1, correlation], seed=seed)
    of_losses, of_squares = intervals([losses, squares], seed=seed)
    brier = "half the sum" if classified.classes == 2 else "the sum"
    found: list[tuple[str, float, str, Interval | None, str]] = [
        ("accuracy", right / count, "share", wilson(right, count), ""),
        ("macro_f1", f1.value, "share", of_f1, "over classes among labels or predictions"),
        ("mcc", correlation.value, "", of_correlation, ""),
        ("log_loss", losses.mean, "nats per item", of_losses, f"clipped at {CLIP:.3g}"),
        ("brier", squares.mean, "", of_squares, f"{brier} over classes of squared differences"),
    ]
    plain = [
        Record(
            name=name, value=value, unit=unit, n=count, interval=spread, signature=signature, data_sha256=data_sha256
        )
        for name, value, unit, spread, signature in found
    ]
    return [*plain, auroc(classified, data_sha256=data_sha256), auprc(classified, data_sha256=data_sha256)]


def item_scores(classified: Classified) -> dict[str, ItemScores]:
    """The per-item scores of those metrics that are means over items."""
    return {
        "accuracy": classified.correct,
        "log_loss": classified.negative_log_likelihood,
        "brier": classified.squared_error,
    }


def per_class(classified: Classified) -> PerClass:
    """Precision, recall, F1 and support of each class."""
    hits, predicted, actual = _thirds(classified.summed("macro_f1").totals)
    with np.errstate(invalid="ignore"):
        return PerClass(hits / predicted, hits / actual, 2 * hits / (predicted + actual), actual.astype(np.int64))


def confusion_matrix(classified: Classified) -> Ints:
    """(classes, classes) counts, rows true and columns predicted; with failed items one more of each, the last."""
    size = classified.classes + int(classified.failures.any())
    predicted = np.where(classified.predicted == FAILED, classified.classes, classified.predicted)
    counts = np.bincount(classified.labels * size + predicted, minlength=size * size)
    return counts.reshape(size, size).astype(np.int64)


def auroc(classified: Classified, *, data_sha256: str | None = None) -> Record:
    """Area under the ROC curve; for more than two classes the mean of each class against the rest.

    The mean is over the classes that have items. The interval is DeLong's (1988), on the logit scale (Pepe 2003), from
    the placement values of the items, which add up over classes as well.
    """
    areas, influence = [], np.zeros(len(classified.ids))
    for number in _judged_classes(classified):
        area, placed = _auroc_of_class(classified.labels == number, classified.stated[:, number])
        areas.append(area)
        influence += placed
    if not areas:
        return _one_class("auroc", classified, data_sha256)
    value = float(np.mean(areas))
    deviation = math.sqrt(float(((influence / len(areas)) ** 2).sum()))
    return Record(
        name="auroc",
        value=value,
        unit="",
        n=len(classified.ids),
        interval=_logit_interval(value, deviation, "DeLong, logit scale"),
        signature=_averaging(classified, len(areas)),
        data_sha256=data_sha256,
    )


def auprc(classified: Classified, *, data_sha256: str | None = None) -> Record:
    """Average precision, the area under the precision-recall curve by steps; mean over classes as in `auroc`.

    The interval is given for two classes: logit scale with the binomial variance over the positive items (Boyd, Eng and
    Page 2013).
    """
    areas = [
        _average_precision(classified.labels == number, classified.stated[:, number])
        for number in _judged_classes(classified)
    ]
    if not areas:
        return _one_class("auprc", classified, data_sha256)
    value, spread = float(np.mean(areas)), None
    if classified.classes == 2:
        deviation = math.sqrt(max(value * (1 - value), 0.0) / int((classified.labels == 1).sum()))
        spread = _logit_interval(value, deviation, "binomial over positive items, logit scale")
    return Record(
        name="auprc",
        value=value,
        unit="",
        n=len(classified.ids),
        interval=spread,
        signature=_averaging(classified, len(areas)),
        data_sha256=data_sha256,
    )


def _thirds(totals: Floats) -> tuple[Floats, Floats, Floats]:
    classes = totals.shape[-1] // 3
    return totals[..., :classes], totals[..., classes : 2 * classes], totals[..., 2 * classes :]


def _judged_classes(classified: Classified) -> list[int]:
    """The classes with a ranking to judge: those with items, unless all items are of one class. Binary: the second."""
    present = np.unique(classified.labels).tolist()
    if len(present) < 2:
        return []
    return [1] if classified.classes == 2 else present


def _auroc_of_class(positive: NDArray[np.bool_], scores: Floats) -> tuple[float, Floats]:
    """The area by ranks (Mann-Whitney), and each item's influence on it (n,), whose squares sum to its variance."""
    count, others = int(positive.sum()), int((~positive).sum())
    ranks = _ranks(scores)
    area = (ranks[positive].sum() - count * (count + 1) / 2) / (count * others)
    influence = np.zeros(len(scores))
    if min(count, others) > 1:
        influence[positive] = ((ranks[positive] - _ranks(scores[positive])) / others - area) / math.sqrt(
            count * (count - 1)
        )
        influence[~positive] = (1 - (ranks[~positive] - _ranks(scores[~positive])) / count - area) / math.sqrt(
            others * (others - 1)
        )
    return float(area), influence


def _ranks(scores: Floats) -> Floats:
    """(n,) ranks from 1, the mean rank for equals. (scipy.stats has this, but takes half a second to import.)"""
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return ranks


def _average_precision(positive: NDArray[np.bool_], scores: Floats) -> float:
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(positive[order])[last_of_equals]
    retrieved = np.nonzero(last_of_equals)[0] + 1
    return float((np.diff(hits, prepend=0) * hits / retrieved).sum() / hits[-1])


def _logit_interval(value: float, deviation: float, method: str) -> Interval | None:
    if deviation == 0 or not 0 < value < 1:
        return None
    spread = -float(ndtri((1 - LEVEL) / 2)) * deviation / (value * (1 - value))
    low, high = expit(logit(value) - spread), expit(logit(value) + spread)
    return Interval(low=float(low), high=float(high), level=LEVEL, method=method)


def _averaging(classified: Classified, judged: int) -> str:
    if classified.classes == 2:
        return "second class positive"
    return f"one against the rest, mean over {judged} of {classified.classes} classes"


def _one_class(name: str, classified: Classified, data_sha256: str | None) -> Record:
    return Record(
        name=name,
        value=None,
        unit="",
        n=len(classified.ids),
        data_sha256=data_sha256,
        not_measured="all items have the same label",
    )
