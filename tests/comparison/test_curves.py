"""The learning curve of the report says what was measured, fitted and needed."""

from __future__ import annotations

import numpy as np
import pytest

from rung.comparison.curves import describe_curve
from rung.comparison.result import LearningCurve
from rung.evaluation.learning_curve import CurveScores, LabelsNeeded
from rung.evaluation.summed import SummedScores
from rung.records import ItemScores

ITEMS = 1_000


def right(share: float) -> SummedScores:
    values = (np.arange(ITEMS) < share * ITEMS).astype(np.float64)
    return SummedScores.of_items(ItemScores([f"{i:04}" for i in range(ITEMS)], values, np.ones(ITEMS)))


def described(sizes: list[int]) -> tuple[LearningCurve, LabelsNeeded]:
    fits = [[right(1 - 2 * size**-0.5 + step) for step in (-0.01, 0.01)] for size in sizes]
    return describe_curve(
        CurveScores(sizes, fits), [right(0.9)], name="linear", reference_name="gpt", seeds=[3, 4], margin=0.01
    )


def test_a_curve_with_a_fit() -> None:
    curve, needed = described([50, 100, 200, 500, 1000])
    assert [(point.items, point.seed) for point in curve.points[:3]] == [(50, 3), (50, 4), (100, 3)]
    assert curve.points[-1].error == pytest.approx(2 * 1000**-0.5 - 0.01, abs=1e-3)
    assert curve.fit is not None
    assert (curve.fit.at[0], curve.fit.at[-1]) == (pytest.approx(50), 4_000)
    assert curve.fit.power == pytest.approx(0.5, abs=0.1)
    ordered = zip(curve.fit.low, curve.fit.fitted, curve.fit.high, strict=True)
    assert all(low - 0.005 <= middle <= high + 0.005 for low, middle, high in ordered)
    assert curve.labels_needed == needed.estimate == pytest.approx((2 / 0.11) ** 2, rel=0.15)
    assert curve.labels_needed_interval == (needed.low, needed.high)
    assert LearningCurve.model_validate_json(curve.model_dump_json()) == curve


def test_three_sizes_have_no_fit_and_say_so() -> None:
    curve, needed = described([50, 100, 200])
    assert curve.fit is None
    assert (curve.labels_needed, curve.labels_needed_interval) == (None, None)
    assert needed.largest_measured == 200
    assert "No curve is fitted to fewer than 4 sizes" in curve.sentence
