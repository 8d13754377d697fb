"""Fits every rung of a ladder within the minutes, and its learning curve; lower rungs first."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from rung.comparison.budget import share_of_time
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


@dataclass(frozen=True)
class _Fitting:
    """Which fits a rung gets: on all items with each of `seeds`, and those of a learning curve."""

    seeds: range
    with_curve: bool


class Climb:
    """Works through a ladder by the clock; without `deadline` (a reading of `time.monotonic()`) no clock is read."""

    def __init__(self, fits: Fits, settings: Settings, deadline: float | None) -> None:
        self._fits, self._settings, self._deadline = fits, settings, deadline

    def up(self, ladder: Sequence[Rung], curves_of: Collection[str]) -> list[Climbed]:
        """Fit each rung on all items and measure its curve; what does not fit the time says so and is left out."""
        climbed = []
        for position, rung in enumerate(ladder):
            self._fits.progress.say(f"{rung.name}: {rung.description}")
            one = Climbed(rung)
            climbed.append(one)
            deadline = self._share_ends(ladder, position)
            planned = self._plan(one, deadline, with_curve=rung.name in curves_of)
            if planned is None:
                continue
            one.fits = [self._fits.on_all(rung, one.plan, seed=seed) for seed in planned.seeds]
            one.notes += sorted({fit.report.note for fit in one.fits if fit.report.note})
            if planned.with_curve:
                self._measure_curve(one, planned.seeds, deadline)
        return climbed

    def _share_ends(self, ladder: Sequence[Rung], position: int) -> float | None:
        """When the time of this rung is over."""
        if self._deadline is None:
            return None
        return time.monotonic() + share_of_time(ladder, position, max(0.0, self._deadline - time.monotonic()))

    def _plan(self, one: Climbed, deadline: float | None, *, with_curve: bool) -> _Fitting | None:
        """Plan as much as fits the time of this rung: all seeds and a curve, or no curve, or a single fit.

        What would leave every fit undertrained does not fit: several networks that all stopped before they had learned
        anything say less about a rung than one that got as far as it could.
        """
        everything = _Fitting(self._seeds(one.rung), with_curve)
        stored = self._fits.stored(one.rung, "fitting")
        if stored is not None and stored["fits"] == 0 and self._deadline is None:
            one.notes += stored["notes"]  # it was left out where these plans were made
            return None
        if stored is not None and stored["fits"]:
            one.plan = self._fits.plan(one.rung, None, seed=self._settings.seed)
            one.notes += stored["notes"]
            return _Fitting(everything.seeds[: stored["fits"]], stored["with_curve"])
        ways = [everything, _Fitting(everything.seeds, False), _Fitting(everything.seeds[:1], False)]
        problem = ""
        for fitting in dict.fromkeys(ways):
            seconds = (
                None if deadline is None else max(0.0, deadline - time.monotonic()) / self._units(one.rung, fitting)
            )
            try:
                one.plan = self._fits.plan(
                    one.rung, seconds, seed=self._settings.seed, undertrained_too=fitting == ways[-1]
                )
            except PlanError as error:
                problem = str(error)
                continue
            if fitting != everything:
                left_out = "" if fitting.with_curve or not with_curve else "no learning curve"
                one.notes.append(f"for want of time: {len(fitting.seeds)} fit(s), {left_out}".rstrip(", "))
            stored = {"fits": len(fitting.seeds), "with_curve": fitting.with_curve, "notes": list(one.notes)}
            self._fits.store(one.rung, "fitting", stored)
            return fitting
        one.notes.append(problem)
        self._fits.store(one.rung, "fitting", {"fits": 0, "with_curve": False, "notes": list(one.notes)})
        self._fits.progress.say(f"{one.rung.name} is left out: {problem.splitlines()[0]}")
        return None

    def _measure_curve(self, one: Climbed, fitted: range, deadline: float | None) -> None:
        """Fit at the sizes for which there is time; the last point is known already.

        The sizes are kept, so that the same comparison can be had again without a clock.
        """
        stored = self._fits.stored(one.rung, "curve")
        *smaller, everything = self._fits.task.learning_sizes()
        seeds = self._all_seeds if len(fitted) == 1 else fitted  # without chance only the items differ by seed
        sizes = smaller if stored is None else stored["sizes"]
        done: dict[int, list[SummedScores]] = {}
        with self._fits.progress.task(f"{one.rung.name}: learning curve", len(sizes) * len(seeds), "fits") as advance:
            for size in sizes:
                if stored is None and self._is_too_late(one, len(seeds) * size / everything, deadline):
                    one.notes.append(f"the learning curve ends early: no time for {size:,} and more labels")
                    break
                done[size] = []
                for seed in seeds:
                    done[size].append(self._summed(self._fits.on_some(one.rung, one.plan, size, seed=seed)))
                    advance(1)
        if stored is None:
            self._fits.store(one.rung, "curve", {"sizes": list(done)})
        last = [self._summed(fit) for fit in one.fits]
        last *= len(seeds) if len(last) == 1 else 1  # a rung without chance: every seed gives this fit
        one.curve = CurveScores([*done, everything], [*done.values(), last])

    def _summed(self, fit: Fit) -> SummedScores:
        scores = self._fits.scores(fit)
        return SummedScores.of_items(scores) if isinstance(scores, ItemScores) else scores

    @property
    def _all_seeds(self) -> range:
        return range(self._settings.seed, self._settings.seed + self._settings.seeds)

    def _seeds(self, rung: Rung) -> range:
        return self._all_seeds if rung.is_random else self._all_seeds[:1]

    def _units(self, rung: Rung, fitting: _Fitting) -> float:
        """What all fits cost, in single fits on all items: that is taken to grow in proportion to the items."""
        *sizes, everything = self._fits.task.learning_sizes()
        fits = len(fitting.seeds) + (self._settings.seeds * sum(sizes) / everything if fitting.with_curve else 0.0)
        return rung.shared_share + (1 - rung.shared_share) * fits

    @staticmethod
    def _is_too_late(one: Climbed, fits: float, deadline: float | None) -> bool:
        """Whether so many more fits on all items would pass the deadline, by the time that one took."""
        if deadline is None:
            return False
        seconds = sum(fit.report.seconds for fit in one.fits) / len(one.fits)
        return time.monotonic() + fits * seconds > deadline
