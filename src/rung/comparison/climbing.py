"""Fits every rung of a ladder within the minutes, and its learning curve; lower rungs first."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from rung.comparison.budget import Workload, seconds_per_fit
from rung.comparison.fits import Fit, Fits
from rung.comparison.settings import Settings
from rung.errors import PlanError
from rung.evaluation.learning_curve import CurveScores
from rung.evaluation.summed import SummedScores
from rung.records import ItemScores
from rung.tasks.task import Plan, Rung


@dataclass
class Climbed:
    """A rung that was fitted on all items, once for each seed that matters; or the reason why it was not."""

    rung: Rung
    plan: Plan = field(default_factory=dict)
    fits: list[Fit] = field(default_factory=list)
    curve: CurveScores | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether there is anything to compare."""
        return bool(self.fits)


class Climb:
    """Works through a ladder by the clock; without `deadline` (a reading of `time.monotonic()`) no clock is read."""

    def __init__(self, fits: Fits, settings: Settings, deadline: float | None) -> None:
        self._fits, self._settings, self._deadline = fits, settings, deadline

    def up(self, ladder: Sequence[Rung], curves_of: Collection[str]) -> list[Climbed]:
        """Fit each rung on all items and measure its curve; what does not fit the time says so and is left out."""
        climbed = []
        for position, rung in enumerate(ladder):
            one = Climbed(rung)
            climbed.append(one)
            workload = self._workload(rung, with_curve=rung.name in curves_of)
            seconds = deadline = None
            if self._deadline is not None:
                left = max(0.0, self._deadline - time.monotonic())
                seconds = seconds_per_fit(ladder, position, left, workload)
                deadline = time.monotonic() + seconds * workload.units
            self._fits.progress.say(f"{rung.name}: {rung.description}")
            try:
                one.plan = self._fits.plan(rung, seconds, seed=self._settings.seed)
            except PlanError as error:
                one.notes.append(str(error))
                self._fits.progress.say(f"{rung.name} is left out: {error.problem}")
                continue
            one.fits = [self._fits.on_all(rung, one.plan, seed=seed) for seed in self._seeds(rung)]
            one.notes += sorted({fit.report.note for fit in one.fits if fit.report.note})
            if rung.name in curves_of:
                self._measure_curve(one, deadline)
        return climbed

    def _measure_curve(self, one: Climbed, deadline: float | None) -> None:
        """Fit at the sizes for which there is time; the last point is known already.

        The sizes are kept, so that the same comparison can be had again without a clock.
        """
        stored = self._fits.stored(one.rung, "curve")
        *smaller, everything = self._fits.task.learning_sizes()
        seeds = self._curve_seeds
        done: dict[int, list[SummedScores]] = {}
        for size in smaller if stored is None else stored["sizes"]:
            if stored is None and self._is_too_late(one, len(seeds) * size / everything, deadline):
                one.notes.append(f"the learning curve ends early: no time for {size:,} and more labels")
                break
            done[size] = [self._summed(self._fits.on_some(one.rung, one.plan, size, seed=seed)) for seed in seeds]
        if stored is None:
            self._fits.store(one.rung, "curve", {"sizes": list(done)})
        last = [self._summed(fit) for fit in one.fits]
        last *= len(seeds) if len(last) == 1 else 1  # a rung without chance: every seed gives this fit
        one.curve = CurveScores([*done, everything], [*done.values(), last])

    def _summed(self, fit: Fit) -> SummedScores:
        scores = self._fits.scores(fit, "test")
        return SummedScores.of_items(scores) if isinstance(scores, ItemScores) else scores

    @property
    def _curve_seeds(self) -> range:
        return range(self._settings.seed, self._settings.seed + self._settings.seeds)

    def _seeds(self, rung: Rung) -> range:
        return self._curve_seeds if rung.is_random else self._curve_seeds[:1]

    def _workload(self, rung: Rung, *, with_curve: bool) -> Workload:
        *sizes, items = self._fits.task.learning_sizes()
        return Workload(len(self._seeds(rung)), sizes if with_curve else (), self._settings.seeds, items)

    @staticmethod
    def _is_too_late(one: Climbed, fits: float, deadline: float | None) -> bool:
        """Whether so many more fits on all items would pass the deadline, by the time that one took."""
        if deadline is None:
            return False
        seconds = sum(fit.report.seconds for fit in one.fits) / len(one.fits)
        return time.monotonic() + fits * seconds > deadline
