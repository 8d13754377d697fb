"""Labelled data in, a verdict out: climb the ladder, measure every rung on the same items, judge, and report."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rung.comparison.budget import seconds_for_fitting
from rung.comparison.card import rung_card
from rung.comparison.climbing import Climb, Climbed
from rung.comparison.fits import Fit, Fits
from rung.comparison.measuring import Costs, measure_costs
from rung.comparison.result import (
    Comparison,
    CurveFit,
    CurvePoint,
    DataFound,
    Disagreement,
    LearningCurve,
    RungResult,
)
from rung.comparison.settings import Settings
from rung.comparison.verdict import Judgement, RungScores, judge, pareto
from rung.errors import EvaluationError, UsageError, did_you_mean
from rung.evaluation.learning_curve import (
    EXTRAPOLATION,
    FEWEST_SIZES,
    CurveScores,
    LabelsNeeded,
    fit_power_law,
    labels_needed,
)
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record
from rung.tasks.task import Rung, Task
from rung.version import __version__

_MOST_DISAGREEMENTS = 50
_PARETO_COSTS = {
    "quality_latency": "latency_batch1_p50",
    "quality_size": "bytes_on_disk",
    "quality_cost": "cost_per_1000",
}
_FITTED_POINTS = 40


@dataclass(frozen=True)
class _Measured:
    """A rung with everything that was measured of it."""

    climbed: Climbed
    scores: RungScores
    folder: Path
    metrics: list[Record]
    by_item: dict[str, ItemScores]
    details: dict[str, Any]
    predictions: Any


def compare(
    task: Task,
    settings: Settings,
    *,
    out: Path,
    command: str = "",
    started: float | None = None,
    progress: Progress = SILENT,
) -> Comparison:
    """Fit, measure and judge the rungs of `task` in the folder `out`; what is done there already is not done again.

    `started`: the reading of `time.monotonic()` from which the minutes count. Raises UsageError for rungs or a
    reference that do not exist, EvaluationError when fewer than two rungs could be fitted.
    """
    started = time.monotonic() if started is None else started
    ladder = task.rungs(settings.rungs)
    _require_ladder(ladder, settings)
    power = task.power(settings.margin)
    progress.say(power["sentence"])
    fits = Fits(task, out, progress)
    climb = Climb(fits, settings, _deadline(settings, started, ladder))
    climbed = climb.up(ladder, _with_curves(ladder, settings))
    measured = _measure(fits, [one for one in climbed if one.finished], settings, progress)
    if len(measured) < 2:
        raise EvaluationError(
            f"{len(measured)} of {len(ladder)} rungs could be fitted, so there is nothing to compare",
            hint="give more --minutes, or name cheaper --rungs",
        )
    reference = _reference(measured, settings)
    needed = _labels_needed(measured, reference, settings)
    judged = judge(
        {one.scores.name: one.scores for one in measured if one is not reference},
        reference.scores,
        margin=settings.margin,
        metric=settings.metric,
        labels_needed=needed,
        seed=settings.seed,
    )
    judged.verdict.reasons.extend(_unreadable(measured))
    comparison = Comparison(
        rung_version=__version__,
        task=task.name,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.monotonic() - started,
        machine=_this_machine(),
        settings=settings.model_dump(mode="json") | {"reference": reference.scores.name},
        data=DataFound(**task.facts, power=power),
        rungs=[_result(one, measured, needed, out, settings) for one in climbed],
        pairs=judged.pairs,
        verdict=judged.verdict,
        pareto=_pareto(measured, settings.metric),
        disagreements=_disagreements(task, judged, measured, reference),
        not_measured=_not_measured(measured),
    )
    columns = {"target": task.facts["target"], "text": list(task.facts["text_columns"])}
    for one in measured:
        card = rung_card(comparison.result(one.scores.name), task, judged.verdict)
        fits.describe(one.folder, card, {"columns": columns}, records=one.metrics, scores=one.by_item)
    return comparison


def _require_ladder(ladder: Sequence[Rung], settings: Settings) -> None:
    names = [rung.name for rung in ladder]
    if len(names) < 2:
        raise UsageError(f"one rung cannot be compared: {', '.join(names)}", hint="name at least two --rungs")
    for wanted in [settings.reference or names[0], *(settings.curves or ())]:
        if wanted not in names:
            raise UsageError(f"'{wanted}' is not on this ladder{did_you_mean(wanted, names)}", hint=", ".join(names))


def _deadline(settings: Settings, started: float, rungs: Sequence[Rung]) -> float | None:
    return None if settings.minutes is None else started + seconds_for_fitting(60 * settings.minutes, rungs)


def _with_curves(ladder: Sequence[Rung], settings: Settings) -> set[str]:
    names = {rung.name for rung in ladder if rung.learns}
    return names if settings.curves is None else names & set(settings.curves)


def _measure(fits: Fits, climbed: list[Climbed], settings: Settings, progress: Progress) -> list[_Measured]:
    """Keep each rung's best fit, score it and measure what it costs."""
    measured = []
    with progress.task("measuring", len(climbed), "rungs") as advance:
        for one in climbed:
            test = [fits.scores(fit) for fit in one.fits]
            valid = [fits.validation(fit) for fit in one.fits]
            is_sampled = "test_items" in one.plan
            scores = RungScores(one.rung.name, test, valid, one.rung.is_pretrained_language_model, is_sampled)
            best = one.fits[scores.chosen_fit]
            folder = fits.keep(one.rung, best)
            costs = _costs(fits, one.rung, best, settings)
            predictions = fits.predictions(best, "test")
            valid_predictions = fits.predictions(best, "valid") if best.report.validation_score is None else None
            metrics, by_item = fits.task.score(predictions, valid_predictions)
            details = fits.task.details(predictions, "test") | costs.details
            records = [*metrics, *costs.records]
            measured.append(_Measured(one, scores, folder, records, by_item, details, predictions))
            advance(1)
    return measured


def _costs(fits: Fits, rung: Rung, best: Fit, settings: Settings) -> Costs:
    """What a rung costs: measured once."""
    stored = fits.stored(rung, "costs")
    if stored is not None:
        return Costs.from_json(stored)
    inputs = fits.task.inputs("test")
    threads, watts = settings.threads or 1, settings.watts_per_core
    costs = measure_costs(best.folder, best.report, inputs, threads=threads, watts_per_core=watts)
    fits.store(rung, "costs", costs.to_json())
    return costs


def _reference(measured: list[_Measured], settings: Settings) -> _Measured:
    """What "an LLM" means here: the rung that was named, else the pretrained language model that is best on validation.

    Without a pretrained one it is the highest rung, of equals the better on validation.
    """
    if settings.reference is not None:
        found = [one for one in measured if one.scores.name == settings.reference]
        if not found:
            raise EvaluationError(
                f"the reference '{settings.reference}' could not be fitted", hint="give more --minutes, or another one"
            )
        return found[0]
    pretrained = [one for one in measured if one.scores.is_pretrained_language_model]
    if pretrained:
        return max(pretrained, key=lambda one: max(one.scores.validation))
    return max(measured, key=lambda one: (one.climbed.rung.height, max(one.scores.validation)))


def _labels_needed(measured: list[_Measured], reference: _Measured, settings: Settings) -> dict[str, LabelsNeeded]:
    asked = set(reference.scores.test[0].ids)  # a sample of the test items, where a prompted model had no time for all
    return {
        one.scores.name: labels_needed(
            one.climbed.curve.among(asked), reference.scores.fits, margin=settings.margin, seed=settings.seed
        )
        for one in measured
        if one.climbed.curve is not None and one is not reference
    }


def _result(
    one: Climbed, measured: list[_Measured], needed: dict[str, LabelsNeeded], out: Path, settings: Settings
) -> RungResult:
    found = next((other for other in measured if other.climbed is one), None)
    rung = one.rung
    common: dict[str, Any] = {
        "name": rung.name,
        "description": rung.description,
        "height": rung.height,
        "is_pretrained_language_model": rung.is_pretrained_language_model,
        "note": "; ".join(one.notes),
    }
    if found is None:
        return RungResult(
            **common, folder="", finished=False, chosen={}, metrics=[], seeds=[], details={}, learning_curve=None
        )
    best = one.fits[found.scores.chosen_fit]
    curve = None
    if one.curve is not None:
        curve = _learning_curve(one.curve, needed.get(rung.name), rung.name, settings)
    return RungResult(
        **common,
        folder=found.folder.relative_to(out).as_posix(),
        finished=True,
        chosen=dict(best.report.chosen),
        metrics=found.metrics,
        seeds=[
            {"seed": fit.seed, "value": value.value} for fit, value in zip(one.fits, found.scores.fits, strict=True)
        ],
        details=found.details,
        learning_curve=curve,
    )


def _learning_curve(curve: CurveScores, needed: LabelsNeeded | None, name: str, settings: Settings) -> LearningCurve:
    points = [
        CurvePoint(items=size, seed=settings.seed + number, error=1 - fit.value)
        for size, fits in zip(curve.sizes, curve.scores, strict=True)
        for number, fit in enumerate(fits)
    ]
    interval = None
    if needed is not None and needed.low is not None and needed.high is not None:
        interval = (needed.low, needed.high)
    return LearningCurve(
        points=points,
        fit=_curve_fit(curve, settings.seed) if len(curve.sizes) >= FEWEST_SIZES else None,
        labels_needed=None if needed is None else needed.estimate,
        labels_needed_interval=interval,
        sentence=needed.sentence(name, "the reference") if needed else "This is the reference.",
    )


def _curve_fit(curve: CurveScores, seed: int) -> CurveFit:
    law = fit_power_law(curve, seed=seed)
    first, last = curve.sizes[0], EXTRAPOLATION * curve.sizes[-1]
    at = [first * (last / first) ** (step / (_FITTED_POINTS - 1)) for step in range(_FITTED_POINTS)]
    at[-1] = last
    low, high = law.band(at)
    return CurveFit(
        floor=law.floor,
        scale=law.scale,
        power=law.power,
        at=at,
        fitted=law.error(at).tolist(),
        low=low.tolist(),
        high=high.tolist(),
    )


def _pareto(measured: list[_Measured], metric: str) -> dict[str, list[str]]:
    """For each cost the rungs that no other beats; those without that figure take no part."""
    fronts = {}
    for front, cost in _PARETO_COSTS.items():
        points = {}
        for one in measured:
            values = {record.name: record.value for record in one.metrics}
            quality, price = values.get(metric), values.get(cost)
            if quality is not None and price is not None:
                points[one.scores.name] = (quality, price)
        fronts[front] = pareto(points)
    return fronts


def _unreadable(measured: list[_Measured]) -> list[str]:
    """Prompted models whose answers could not all be read; those count as wrong, which says little of the model."""
    found = []
    for one in measured:
        told = one.details.get("prompting", {})
        if told.get("parse_failures"):
            share = f"{told['parse_failures']:,} of {told['asked']:,} answers"
            found.append(f"{share} of {one.scores.name} name no label and count as wrong; see its failures.")
    return found


def _disagreements(
    task: Task, judged: Judgement, measured: list[_Measured], reference: _Measured
) -> list[Disagreement]:
    small = next(one for one in measured if one.scores.name == judged.verdict.chosen)
    found = task.differing(small.predictions, reference.predictions, "test")
    return [
        Disagreement(id=one["id"], text=one["text"], label=one["label"], small=one["first"], reference=one["second"])
        for one in found[:_MOST_DISAGREEMENTS]
    ]


def _not_measured(measured: list[_Measured]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for one in measured:
        for record in one.metrics:
            if record.not_measured is not None:
                reasons.setdefault(f"{record.name}: {record.not_measured}", []).append(one.scores.name)
    everyone = len(measured)
    return [
        f"{reason} ({'all rungs' if len(names) == everyone else ', '.join(names)})" for reason, names in reasons.items()
    ]


def _this_machine() -> str:
    import os

    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
