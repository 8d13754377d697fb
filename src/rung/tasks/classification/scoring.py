"""How predictions of labels are scored, and what the report shows beside the records."""

from __future__ import annotations

from typing import Any

import numpy as np

from rung.data.labelled import LabelledItems
from rung.evaluation.calibration import (
    area_under_risk_coverage,
    expected_calibration_error,
    fit_temperature,
    reliability,
    risk_coverage,
    temperature_record,
)
from rung.evaluation.classification import (
    DECISIVE_METRICS,
    Classified,
    confusion_matrix,
    item_scores,
    per_class,
    records,
)
from rung.evaluation.proportions import wilson
from rung.evaluation.summed import SummedScores
from rung.records import ItemScores, Record
from rung.tasks.classification.predictions import Predictions

METRICS = DECISIVE_METRICS
_COVERAGE_POINTS = 50
_SMALLEST_GROUP = 30
"""Accuracy of fewer items is not shown: such figures are noise and may point to persons."""


def classified(items: LabelledItems, predictions: Predictions) -> Classified:
    """Items and predictions in the form that metrics take."""
    return Classified(items.ids, items.labels, predictions.probabilities, predictions.failed)


def primary(metric: str, items: LabelledItems, predictions: Predictions) -> ItemScores | SummedScores:
    """The scores of the primary metric: by item where it is a mean over items."""
    found = classified(items, predictions)
    return found.correct if metric == "accuracy" else found.summed(metric)


def scores(items: LabelledItems, predictions: Predictions) -> tuple[list[Record], dict[str, ItemScores]]:
    """All quality records, and per-item scores of those that are means over items."""
    found, sha256 = classified(items, predictions), items.sha256
    measured = [
        *records(found, data_sha256=sha256),
        expected_calibration_error(found, data_sha256=sha256),
        area_under_risk_coverage(found, data_sha256=sha256),
    ]
    return measured, item_scores(found)


def temperature(items: LabelledItems, predictions: Predictions) -> Record:
    """The temperature that suits validation items best: above 1 the classifier was too sure of itself."""
    return temperature_record(fit_temperature(classified(items, predictions)), validation_items=len(items))


def details(items: LabelledItems, predictions: Predictions) -> dict[str, Any]:
    """Confusion, figures by class, reliability, risk against coverage, and accuracy by group."""
    found = classified(items, predictions)
    by_class, (coverage, risk) = per_class(found), risk_coverage(found)
    shown = np.unique(np.linspace(0, len(coverage) - 1, _COVERAGE_POINTS).round().astype(np.int64))
    columns = zip(items.label_names, by_class.precision, by_class.recall, by_class.f1, by_class.support, strict=True)
    return {
        # Failed items have a row and a column of their own, the last.
        "labels": [*items.label_names, *(["(no answer)"] if found.failures.any() else [])],
        "confusion": confusion_matrix(found).tolist(),
        "per_class": [
            {
                "label": label,
                "precision": _known(precision),
                "recall": _known(recall),
                "f1": _known(f1),
                "support": int(support),
            }
            for label, precision, recall, f1, support in columns
        ],
        "reliability": [vars(one) for one in reliability(found)],
        "risk_coverage": [{"coverage": float(coverage[at]), "risk": float(risk[at])} for at in shown],
        "groups": _groups(items, found),
    }


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else float(value)


def _groups(items: LabelledItems, found: Classified) -> list[dict[str, Any]]:
    """Accuracy by group with Wilson's interval; too small groups are named without figures."""
    if items.groups is None:
        return []
    groups = np.array(items.groups)
    rows = []
    for group in np.unique(groups):
        members = groups == group
        n, right = int(members.sum()), int(found.correct.values[members].sum())
        row: dict[str, Any] = {"group": str(group), "n": n, "suppressed": n < _SMALLEST_GROUP}
        if n >= _SMALLEST_GROUP:
            spread = wilson(right, n)
            row |= {"accuracy": right / n, "low": spread.low, "high": spread.high}
        rows.append(row)
    return rows
