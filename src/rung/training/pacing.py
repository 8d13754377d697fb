"""Keeping a run to its deadline: how many steps fit into the time that is left.

Only runs with a deadline have a `Pace`. The planned number of steps is an estimate made before training; machines get
slower and faster. Thirty-two times over the run, and after every power of two of steps for plans that were far off, the
projected end is compared with the deadline; when it is off by more than 2 % of the budget, the schedule is revised.
Checking often matters: with checks only at the start of the decay and half-way through it, a machine that becomes twice
as slow just after the last check overshoots by an eighth of the whole time.
"""

from __future__ import annotations

import time
from collections import deque
from statistics import fmean

from rung.training.schedule import Schedule

_CHECKS_PER_RUN = 32
_TOLERANCE = 0.02  # of the budget: well inside the promised 10 %, wide enough not to chase the noise of step times
_WINDOW = 64  # steps; the mean, not the median, because pauses cost time too
_WARMING_UP = 2  # steps: compilation and first touches of memory say nothing about the pace
_FEWEST = 3


class Pace:
    """Measures steps and upkeep (validation, checkpoints), and says when the planned number of steps must change."""

    def __init__(self, deadline: float) -> None:
        """`deadline` is a reading of `time.monotonic()`, at which the last step and its checkpoint shall be done."""
        self._deadline = deadline
        self._budget = max(deadline - time.monotonic(), 0.0)
        self._step_seconds: deque[float] = deque(maxlen=_WINDOW)
        self._steps_seen = 0
        self._upkeep: dict[str, float] = {}

    def step_took(self, seconds: float) -> None:
        """Take note of one optimiser step, without validation and checkpoints."""
        self._steps_seen += 1
        if self._steps_seen > _WARMING_UP:
            self._step_seconds.append(seconds)

    def upkeep_took(self, kind: str, seconds: float) -> None:
        """Take note of one validation or checkpoint."""
        self._upkeep[kind] = seconds

    def is_over(self) -> bool:
        """Whether training must end with this step, because the deadline is about to be missed by the tolerance."""
        return time.monotonic() + sum(self._upkeep.values()) > self._deadline + _TOLERANCE * self._budget

    def is_due(self, schedule: Schedule, step: int) -> bool:
        """Whether the plan is checked before step `step`. It is left alone during the warm-up."""
        if step <= schedule.warmup:
            return False
        is_regular = step % max(1, schedule.steps // _CHECKS_PER_RUN) == 0
        return is_regular or step == schedule.decay_start or step.bit_count() == 1

    def new_steps(self, schedule: Schedule, step: int, every: dict[str, int | None]) -> int | None:
        """The number of steps that meets the deadline, or None when the present plan does.

        `every` says after how many steps each kind of upkeep comes round (None: only once, at the end).
        """
        if len(self._step_seconds) < _FEWEST:
            return None
        cost, last = fmean(self._step_seconds), 0.0
        for kind, seconds in self._upkeep.items():
            last += seconds
            period = every.get(kind)
            if period is not None:
                cost += seconds / period
        left = self._deadline - time.monotonic() - last
        if abs((schedule.steps - step) * cost - left) <= _TOLERANCE * self._budget:
            return None
        return step + max(0, int(left / cost))
