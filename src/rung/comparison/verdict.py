"""The verdict by rule: is a small rung enough, and if that cannot be said, what would it take to know.

The rule, for a margin fixed before the run, two-sided 95 % intervals of the differences on the test items (over items
and training seeds), and the small rung that was best on validation. Rungs that stand on a pretrained language model are
not small: they are compared with the reference, but no verdict rests on them unless there are no others.

1. **no** (an LLM is not needed): that small rung is non-inferior, its interval against the reference above -margin.
2. **more labels**: it is worse than the reference now (interval below 0), but its learning curve reaches the
   reference's present quality, less the margin, within four times the labels.
3. **yes**: the reference is better than every small rung by more than the margin (all intervals below -margin).
4. **not decided**: everything else, with the number of test items that would decide.

No score weighs quality against cost: `pareto` gives the rungs that no other beats on both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from rung.comparison import report_text as words
from rung.comparison.result import Answer, PairResult, Verdict
from rung.errors import EvaluationError
from rung.evaluation.learning_curve import LabelsNeeded
from rung.evaluation.noninferiority import Difference, difference
from rung.evaluation.paired_tests import McNemar, approximate_randomisation, holm, mcnemar
from rung.evaluation.summed import SummedScores
from rung.records import ItemScores, Record, require_same_items

ALPHA = 0.05


@dataclass(frozen=True)
class RungScores:
    """What the verdict needs to know of one rung: scores of each fit on the test items, and its validation scores.

    `test` has one entry for each training seed, all over the same items; larger is better. `ItemScores` for means over
    items (accuracy), `SummedScores` for metrics such as macro-F1. `validation` has the metric of the same fits on the
    validation items. A rung that `is_sampled` was asked, by its plan, about some of the test items only: it is compared
    with others on these.
    """

    name: str
    test: Sequence[ItemScores | SummedScores]
    validation: Sequence[float]
    is_pretrained_language_model: bool = False
    is_sampled: bool = False

    def __post_init__(self) -> None:
        if not self.test or len(self.test) != len(self.validation):
            raise EvaluationError(
                f"{len(self.test)} fits scored on test and {len(self.validation)} on validation do not match",
                where=self.name,
            )

    @cached_property
    def fits(self) -> list[SummedScores]:
        """The test scores as functions of sums, one for each seed."""
        return [SummedScores.of_items(one) if isinstance(one, ItemScores) else one for one in self.test]

    def among(self, ids: Collection[str]) -> RungScores:
        """The same rung, scored on those test items that are in `ids`."""
        if len(self.test[0].ids) == len(ids) and set(self.test[0].ids) == set(ids):
            return self
        return replace(self, test=[one.among(ids) for one in self.test])

    @property
    def chosen_fit(self) -> int:
        """Which fit is kept: the best on validation, the first of equals."""
        return int(np.argmax(self.validation))

    @property
    def value(self) -> float:
        """Mean of the metric on test over fits."""
        return float(np.mean([fit.value for fit in self.fits]))


@dataclass(frozen=True)
class Judgement:
    """All pairs against the reference, and the verdict."""

    pairs: list[PairResult]
    verdict: Verdict


@dataclass(frozen=True)
class _Pair:
    """A small rung against the reference, before the corrections for many tests."""

    rung: RungScores
    difference: Difference
    mcnemar: McNemar | None
    p: float
    discordant: tuple[int, int] = field(default=(0, 0))


def judge(
    small: Mapping[str, RungScores],
    reference: RungScores,
    *,
    margin: float,
    metric: str = "accuracy",
    labels_needed: Mapping[str, LabelsNeeded] | None = None,
    seed: int = 0,
) -> Judgement:
    """Compare every small rung with the reference on the same test items and give the verdict.

    `margin` is in the metric's own unit (0.01 is one point of accuracy); `labels_needed` comes from learning curves.
    McNemar's test and its like are made on the fit of each rung that was best on validation, intervals on all fits.
    Raises EvaluationError when the items differ, the margin is not in (0, 1), or there is nothing to compare.
    """
    if not 0 < margin < 1:
        raise EvaluationError(f"the margin must lie between 0 and 1 (0.01 is one point), not {margin}")
    if not small:
        raise EvaluationError(f"there is no rung to compare with {reference.name}")
    pairs = [_compare(rung, reference, seed=seed) for rung in small.values()]
    adjusted = holm([pair.p for pair in pairs])
    results = [
        _result(pair, reference, float(p), margin=margin, metric=metric)
        for pair, p in zip(pairs, adjusted, strict=True)
    ]
    is_small = [not pair.rung.is_pretrained_language_model for pair in pairs]
    candidates = [index for index, small_enough in enumerate(is_small) if small_enough or not any(is_small)]
    best = max(candidates, key=lambda index: float(np.mean(pairs[index].rung.validation)))
    reached = (labels_needed or {}).get(pairs[best].rung.name)
    everywhere_worse = all(results[index].reference_superior for index in candidates)
    verdict = _verdict(
        pairs,
        results,
        best,
        reference,
        everywhere_worse=everywhere_worse,
        margin=margin,
        metric=metric,
        reached=reached,
    )
    return Judgement(pairs=results, verdict=verdict)


def pareto(points: Mapping[str, tuple[float, float]], *, maximise: tuple[bool, bool] = (True, False)) -> list[str]:
    """Return the names that no other point beats: at least as good on both axes and better on one.

    By default the first axis is better when larger (quality) and the second when smaller (latency, bytes, cost).
    Sorted from the best on the first axis down; equal points are all kept.
    """
    signs = [1.0 if larger else -1.0 for larger in maximise]
    signed = {name: (signs[0] * first, signs[1] * second) for name, (first, second) in points.items()}

    def beaten(name: str) -> bool:
        first, second = signed[name]
        return any(a >= first and b >= second and (a, b) != (first, second) for a, b in signed.values())

    return sorted((name for name in points if not beaten(name)), key=lambda name: (-signed[name][0], name))


def _on_common_items(rung: RungScores, reference: RungScores) -> tuple[RungScores, RungScores]:
    """Both on the test items that both were asked about. EvaluationError when others are missing than a plan says."""
    ours, theirs = set(rung.test[0].ids), set(reference.test[0].ids)
    as_planned = (rung.is_sampled or theirs <= ours) and (reference.is_sampled or ours <= theirs)
    if not (as_planned and ours & theirs):
        require_same_items(rung.test[0].ids, reference.test[0].ids)
    return rung.among(ours & theirs), reference.among(ours & theirs)


def _compare(rung: RungScores, reference: RungScores, *, seed: int) -> _Pair:
    rung, reference = _on_common_items(rung, reference)
    first, second = rung.test[rung.chosen_fit], reference.test[reference.chosen_fit]
    found = difference(rung.fits, reference.fits, seed=seed)
    if isinstance(first, ItemScores) and isinstance(second, ItemScores) and _is_right_or_wrong(first, second):
        exact = mcnemar(first, second)
        return _Pair(rung, found, exact, exact.p, (exact.only_first, exact.only_second))
    p = approximate_randomisation(rung.fits[rung.chosen_fit], reference.fits[reference.chosen_fit], seed=seed)
    return _Pair(rung, found, None, p)


def _is_right_or_wrong(*scores: ItemScores) -> bool:
    return all(np.isin(one.values, (0.0, 1.0)).all() and (one.weights == 1).all() for one in scores)


def _result(pair: _Pair, reference: RungScores, holm_p: float, *, margin: float, metric: str) -> PairResult:
    found = pair.difference
    test = "exact McNemar" if pair.mcnemar else "approximate randomisation"
    return PairResult(
        rung=pair.rung.name,
        reference=reference.name,
        difference=Record(
            name=f"difference in {metric}",
            value=found.value,
            unit="share",
            n=found.n,
            interval=found.interval,
            signature=f"paired by item, mean over {len(pair.rung.test)} and {len(reference.test)} fits; "
            f"p by {test} on fits {pair.rung.chosen_fit} and {reference.chosen_fit}, the best on validation",
        ),
        mcnemar_p=pair.mcnemar.p if pair.mcnemar else None,
        holm_p=holm_p,
        discordant=pair.discordant,
        probability_better=found.probability_better,
        non_inferior=found.non_inferior(margin),
        superior=holm_p < ALPHA and found.interval is not None and found.interval.low > 0,
        reference_superior=found.inferior(margin),
    )


def _verdict(
    pairs: list[_Pair],
    results: list[PairResult],
    best: int,
    reference: RungScores,
    *,
    everywhere_worse: bool,
    margin: float,
    metric: str,
    reached: LabelsNeeded | None,
) -> Verdict:
    chosen, found = pairs[best].rung, pairs[best].difference
    worse_now = found.interval is not None and found.interval.high < 0
    labels = reached.estimate if reached else None
    items: int | None = None
    answer: Answer
    if results[best].non_inferior:
        answer = "no"
    elif worse_now and reached and labels and labels > reached.largest_measured:
        answer = "more labels"
    elif everywhere_worse:
        answer = "yes"
    else:
        answer = "not decided"
        items = found.more_items(margin)
    wording = _Wording(chosen, reference, found, margin, metric)
    return Verdict(
        answer=answer,
        sentence=wording.sentence(answer, labels, items),
        reasons=wording.reasons(results, reached),
        chosen=chosen.name,
        reference=reference.name,
        margin=margin,
        labels_needed=labels if answer in ("no", "more labels") else None,
        items_needed=items,
        about_pretrained=reference.is_pretrained_language_model,
    )


@dataclass(frozen=True)
class _Wording:
    """The verdict in words."""

    chosen: RungScores
    reference: RungScores
    found: Difference
    margin: float
    metric: str

    def sentence(self, answer: Answer, labels: int | None, items: int | None) -> str:
        """One line that a manager can read."""
        small, large, margin = self.chosen.name, self.reference.name, _points(self.margin)
        scope = "" if self.reference.is_pretrained_language_model else "among the rungs trained here, "
        match answer:
            case "no":
                said = (
                    f"no, {scope}{small} is enough: {self._difference()}, "
                    f"not worse by more than the margin of {margin}."
                )
            case "yes":
                said = f"yes, {scope}{large} is needed: {self._difference()}, more than the margin of {margin}."
            case "more labels":
                assert labels is not None  # noqa: S101 - the rule gives this answer with a number only
                said = (
                    f"{scope}not with this much data: about {about(labels)} labels would bring {small} within {margin} "
                    f"of {large}; now {self._difference()}."
                )
            case _:
                more = (
                    f"about {about(items)} more test items would decide"
                    if items
                    else "more test items alone would hardly decide: it lies on the margin, or fits vary too much"
                )
                said = (
                    f"{scope}not decided: {self._difference()}, neither clearly within nor beyond the margin of "
                    f"{margin}; {more}."
                )
        caveat = (
            ""
            if self.reference.is_pretrained_language_model
            else " No pretrained language model took part, so this says nothing about one."
        )
        return said[0].upper() + said[1:] + caveat

    def reasons(self, results: Sequence[PairResult], reached: LabelsNeeded | None) -> list[str]:
        """What the sentence rests on, a line each."""
        lines = [
            f"{self.chosen.name} was the best small rung on validation "
            f"({self.metric} {self._score(float(np.mean(self.chosen.validation)))}).",
            f"On {self.found.n:,} test items {self.chosen.name} scores {self._score(self.chosen.value)} and "
            f"{self.reference.name} {self._score(self.reference.value)}.",
        ]
        others = [result.rung for result in results if result.non_inferior and result.rung != self.chosen.name]
        if others:
            lines.append(f"Also within the margin: {', '.join(others)}.")
        superior = [result.rung for result in results if result.superior]
        if superior:
            lines.append(f"Better than {self.reference.name}, after Holm's correction: {', '.join(superior)}.")
        if reached is not None:
            lines.append(reached.sentence(self.chosen.name, self.reference.name))
        return lines

    def _score(self, value: float) -> str:
        return words.primary_value(value, self.metric)

    def _difference(self) -> str:
        """`linear is 0.4 points behind gpt (95 % interval 0.1 behind to 0.9 ahead)`, from rounded numbers."""
        value = 100 * self.found.value
        small, large = self.chosen.name, self.reference.name
        spread = ""
        if self.found.interval is not None:
            low, high = 100 * self.found.interval.low, 100 * self.found.interval.high
            spread = f" (95 % interval {low:+.1f} to {high:+.1f})".replace("-", "−")
        if abs(value) < 0.05:
            return f"{small} and {large} score the same{spread}"
        side = "ahead of" if value > 0 else "behind"
        return f"{small} is {_points(abs(self.found.value), digits=1)} {side} {large}{spread}"


def about(count: int) -> str:
    """A count rounded up to two leading digits: 7,547 -> `7,600`."""
    unit = 10 ** max(len(str(count)) - 2, 0)
    return f"{-(-count // unit) * unit:,}"


def _points(share: float, *, digits: int | None = None) -> str:
    number = f"{100 * share:g}" if digits is None else f"{100 * share:.{digits}f}"
    return f"{number} {'point' if float(number) == 1 else 'points'}"
