"""The learning-rate schedule: warm-up, flat, linear decay, as straight lines that can be bent while training runs.

"WSD" (warm-up, stable, decay; Hu et al. 2024, MiniCPM, section 4; Hägele et al. 2024) needs no horizon until the decay
begins, so a run can be extended from its pre-decay checkpoint, and a run with a deadline can move its own end. Every
such revision only adds a line that starts at the present step. The lines already walked stay as they are, so the
final schedule, written into the run folder, reproduces the whole run bit for bit without a clock.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from rung.errors import RecipeError


@dataclass(frozen=True)
class Ramp:
    """From `start` steps on, the multiplier moves in a straight line from `value` to `target` at `end` steps."""

    start: int
    value: float
    end: int
    target: float

    def at(self, position: int) -> float:
        """The multiplier after `position` steps (from `start` on)."""
        if position >= self.end:
            return self.target
        return self.value + (self.target - self.value) * ((position - self.start) / (self.end - self.start))


@dataclass(frozen=True)
class Revision:
    """A planned number of steps that was changed while training ran."""

    step: int
    old_steps: int
    new_steps: int
    reason: str


@dataclass(frozen=True)
class Schedule:
    """A piecewise-linear multiplier of the learning rate over `steps` optimiser steps.

    `ramps` are ordered by `start`; the last one that has started holds. The decay is always the last to begin.
    """

    ramps: tuple[Ramp, ...]
    steps: int
    decay_start: int
    decay_fraction: float

    @classmethod
    def warmup_flat_decay(cls, steps: int, *, warmup: int, decay_fraction: float, final: float) -> Self:
        """Rise to 1 over `warmup` steps, stay, fall linearly to `final` over the last `decay_fraction` of all steps.

        Raises RecipeError when the parts do not fit into `steps`.
        """
        if steps < 1:
            raise RecipeError(f"training needs at least 1 step, not {steps}", hint="set steps to 1 or more")
        if not 0 <= warmup < steps:
            raise RecipeError(f"a warm-up of {warmup} steps does not fit into {steps}", hint="shorten the warm-up")
        if not 0.0 <= decay_fraction <= 1.0:
            raise RecipeError(f"decay_fraction must lie between 0 and 1, not {decay_fraction}")
        rise = Ramp(0, 0.0, warmup, 1.0)
        start = max(warmup, steps - round(steps * decay_fraction))
        return cls((rise, Ramp(start, 1.0, steps, final)), steps, start, decay_fraction)

    def multiplier(self, step: int) -> float:
        """The multiplier of step `step`, counted from 0: the first of w warm-up steps has 1/w, the last 1."""
        return self._after(step + 1)

    def revised(self, step: int, steps: int) -> Schedule:
        """The same schedule up to `step`, ended after `steps` steps in all.

        Before the decay, its start moves so that the decay keeps its share of the run (but not before `step` or the
        end of the warm-up); within the decay, a new line leads from the present value to the final one.
        """
        final = self.ramps[-1].target
        if step > self.decay_start:
            bend = Ramp(step, self._after(step), steps, final)
            return replace(self, ramps=(*self.ramps, bend), steps=steps)
        kept = self.ramps[:-1]
        start = max(step, kept[-1].end, steps - round(steps * self.decay_fraction))
        return Schedule((*kept, Ramp(start, 1.0, steps, final)), steps, start, self.decay_fraction)

    @property
    def warmup(self) -> int:
        """Number of warm-up steps."""
        return self.ramps[0].end

    def to_json(self) -> dict[str, Any]:
        """Plain values; floats survive JSON exactly."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` gave."""
        return cls(**{**value, "ramps": tuple(Ramp(**ramp) for ramp in value["ramps"])})

    def _after(self, position: int) -> float:
        """The multiplier that leads to `position` steps done; at a bend the two lines agree."""
        started = [ramp for ramp in self.ramps if ramp.start < position]
        return started[-1].at(position) if started else self.ramps[0].value
