"""A measured learning curve in the form of the report, with what it says of the labels a rung needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rung.comparison.result import CurveFit, CurvePoint, LearningCurve
from rung.evaluation.learning_curve import (
    EXTRAPOLATION,
    FEWEST_SIZES,
    CurveScores,
    LabelsNeeded,
    fit_power_law,
    labels_needed,
)
from rung.evaluation.summed import SummedScores

_PLACES = 25  # where the fitted curve and its band are written down, evenly in log n


def describe_curve(
    curve: CurveScores,
    reference: Sequence[SummedScores],
    *,
    name: str,
    reference_name: str,
    seeds: Sequence[int],
    margin: float,
    seed: int = 0,
) -> tuple[LearningCurve, LabelsNeeded]:
    """Return a rung's curve for the report, and its labels needed against the fits of the reference on all data.

    `seeds` name the columns of `curve.scores`. Below 4 sizes there is no fit, and the sentence says so. Raises
    EvaluationError when curve and reference are over different items.
    """
    needed = labels_needed(curve, reference, margin=margin, seed=seed)
    points = [
        CurvePoint(items=int(size), seed=number, error=1 - fit.value)
        for size, fits in zip(curve.sizes, curve.scores, strict=True)
        for number, fit in zip(seeds, fits, strict=True)
    ]
    sentence, fit = needed.sentence(name, reference_name), None
    if len(curve.sizes) >= FEWEST_SIZES:
        fit = _fit(curve, seed=seed)
    else:
        sentence += f" No curve is fitted to fewer than {FEWEST_SIZES} sizes."
    interval = None if needed.low is None or needed.high is None else (needed.low, needed.high)
    described = LearningCurve(
        points=points, fit=fit, labels_needed=needed.estimate, labels_needed_interval=interval, sentence=sentence
    )
    return described, needed


def _fit(curve: CurveScores, *, seed: int) -> CurveFit:
    law = fit_power_law(curve, seed=seed)
    places = np.geomspace(law.smallest_measured, EXTRAPOLATION * law.largest_measured, _PLACES)
    places[-1] = EXTRAPOLATION * law.largest_measured  # geomspace may end a rounding error beyond what may be asked
    low, high = law.band(places.tolist())
    return CurveFit(
        floor=law.floor,
        scale=law.scale,
        power=law.power,
        at=places.tolist(),
        fitted=law.error(places.tolist()).tolist(),
        low=low.tolist(),
        high=high.tolist(),
    )
