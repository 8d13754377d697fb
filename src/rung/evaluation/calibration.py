"""Do a classifier's probabilities mean what they say, and does its confidence know where it errs.

Confidence is the probability of the predicted class. Failed items have stated none: they are left out of reliability,
calibration error and temperature, and come last, as errors, when items are ranked by confidence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from rung.evaluation.classification import CLIP, Classified
from rung.records import Record

BINS = 15
_LOG_TEMPERATURES = (-4.0, 4.0)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityBin:
    """Items of like confidence: its range, its mean, their accuracy and number."""

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


def reliability(classified: Classified, *, bins: int = BINS) -> list[ReliabilityBin]:
    """Return the reliability curve: up to `bins` bins of equal numbers of items, by rising confidence.

    Items of one confidence are never parted (a classifier with few distinct outputs has fewer, larger bins), so the
    result does not depend on the order of items. Empty when every item failed.
    """
    confidence, right = _confidence(classified)
    if not len(confidence):
        return []
    ordered = np.sort(confidence)
    first, after = np.searchsorted(ordered, confidence, "left"), np.searchsorted(ordered, confidence, "right")
    number = (first + after - 1) * bins // (2 * len(ordered))  # the bin of the middle one of equals
    found = []
    for members in (number == bin_number for bin_number in np.unique(number)):
        own = confidence[members]
        mean, accuracy = float(own.mean()), float(right[members].mean())
        found.append(ReliabilityBin(float(own.min()), float(own.max()), mean, accuracy, len(own)))
    return found


def expected_calibration_error(classified: Classified, *, bins: int = BINS, data_sha256: str | None = None) -> Record:
    """Mean over items of |accuracy - confidence| of their bin, bins of equal mass (Nguyen and O'Connor 2015).

    It has no interval: its bias is upwards, about sqrt(bins / n) / 2 for a perfectly calibrated classifier of middling
    confidence, and resampling items adds that bias again.
    """
    curve = reliability(classified, bins=bins)
    count = sum(one.count for one in curve)
    error = sum(one.count * abs(one.accuracy - one.confidence) for one in curve)
    return Record(
        name="ece",
        value=error / count if count else None,
        unit="share",
        n=count,
        signature=f"{bins} equal-mass bins",
        data_sha256=data_sha256,
        not_measured=None if count else "every item failed",
    )


def fit_temperature(validation: Classified) -> float:
    """Return the temperature T > 0 for which softmax(ln p / T) has the least log-loss on `validation` items.

    Guo and others 2017 (arXiv 1706.04599); ln p stands for the logits, from which it differs by a constant that softmax
    drops. The loss is convex in 1/T, so the search over one number finds the minimum. It is 1 when every item failed.
    """
    answered = ~validation.failures
    if not answered.any():
        return 1.0
    logs, labels = _logs(validation.probabilities[answered]), validation.labels[answered]

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logs * np.exp(-log_temperature), axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def with_temperature(classified: Classified, temperature: float) -> Classified:
    """The same items with probabilities softmax(ln p / temperature). Predictions stay, confidence changes."""
    return replace(classified, probabilities=softmax(_logs(classified.stated) / temperature, axis=1))


def risk_coverage(classified: Classified) -> tuple[Floats, Floats]:
    """Return (coverage, risk): the error among the most confident share of items, for each confidence as threshold.

    El-Yaniv and Wiener 2010. Coverage rises to 1, where risk is 1 - accuracy. Items of equal confidence enter together.
    """
    confidence = np.where(classified.failures, -1.0, classified.stated.max(axis=1))
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(1 - classified.correct.values[order])
    answered = np.arange(1, len(order) + 1)
    last_of_equals = np.append(np.diff(confidence[order]) != 0, True)
    return answered[last_of_equals] / len(order), (wrong / answered)[last_of_equals]


def area_under_risk_coverage(classified: Classified, *, data_sha256: str | None = None) -> Record:
    """AURC: mean over items of the risk at the coverage where each enters (Geifman, Uziel and El-Yaniv 2019)."""
    coverage, risk = risk_coverage(classified)
    return Record(
        name="aurc",
        value=float((np.diff(coverage, prepend=0.0) * risk).sum()),
        unit="",
        n=len(classified.ids),
        signature="items of equal confidence enter together; failed items enter last",
        data_sha256=data_sha256,
    )


def temperature_record(temperature: float, *, validation_items: int) -> Record:
    """The fitted temperature as a record: above 1 the classifier was too sure of itself, below 1 not sure enough."""
    return Record(name="temperature", value=temperature, unit="", n=validation_items, signature="fitted on validation")


def _confidence(classified: Classified) -> tuple[Floats, Floats]:
    answered = ~classified.failures
    return classified.stated[answered].max(axis=1), classified.correct.values[answered]


def _logs(probabilities: Floats) -> Floats:
    return np.log(np.clip(probabilities, CLIP, None))
