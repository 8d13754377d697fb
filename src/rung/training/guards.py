"""The guard: no step is taken on a loss or gradient that is not finite, or that stands far outside the recent ones.

A refused step leaves weights and optimiser untouched and uses up its samples, so the run goes on with the next ones.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self


class Verdict(StrEnum):
    """What the guard says about one step."""

    FINE = "fine"
    SPIKE = "spike"
    NOT_FINITE = "not finite"
    NO_TARGETS = "no targets"


@dataclass(frozen=True)
class GuardSettings:
    """When a step is refused and when training stops.

    `max_skips`: five refused steps in a row are five different batches met by the same weights. One overflow can be an
    odd batch; by the fifth the weights or the learning rate are at fault, and every further step would be lost too.
    After as many spikes in a row the higher loss is how things are now, not an outlier, and steps are taken again.

    `spike_threshold`: robust standard deviations (1.4826 x median absolute deviation over `window` steps, as
    OLMo-core's skip-step optimiser does with mean and deviation) above the median; None switches spikes off, right for
    tasks whose loss comes close to zero, where the rare hard example is worth the most.
    """

    window: int = 128
    spike_threshold: float | None = 10.0
    max_skips: int = 5


# The smallest deviation believed, as a share of the median: a loss must exceed the median by a fifth, a gradient norm
# be three times it, before it can be a spike, however quiet the last steps were.
_LOSS_FLOOR = 0.02
_NORM_FLOOR = 0.2
_MAD_TO_DEVIATION = 1.4826


@dataclass
class Guard:
    """Judges each step from its mean loss and gradient norm. Its state is part of a checkpoint."""

    settings: GuardSettings
    losses: deque[float] = field(init=False)
    norms: deque[float] = field(init=False)
    spikes_in_a_row: int = 0
    failures_in_a_row: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.losses = deque(maxlen=self.settings.window)
        self.norms = deque(maxlen=self.settings.window)

    def judge(self, loss: float, norm: float, count: float) -> Verdict:
        """Judge one step: mean `loss` and gradient `norm` over `count` targets. Anything but FINE: do not take it."""
        if count == 0:
            return self._failed(Verdict.NO_TARGETS)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return self._failed(Verdict.NOT_FINITE)
        self.failures_in_a_row = 0
        outlier = self._stands_out(loss, self.losses, _LOSS_FLOOR) or self._stands_out(norm, self.norms, _NORM_FLOOR)
        self.losses.append(loss)  # outliers too: the median bears them, and a lasting change must become the norm
        self.norms.append(norm)
        self.spikes_in_a_row = self.spikes_in_a_row + 1 if outlier else 0
        if outlier and self.spikes_in_a_row <= self.settings.max_skips:
            return self._count(Verdict.SPIKE)
        return Verdict.FINE

    @property
    def must_stop(self) -> bool:
        """Whether too many steps in a row could not be taken."""
        return self.failures_in_a_row >= self.settings.max_skips

    def to_json(self) -> dict[str, Any]:
        """Plain values; floats survive JSON exactly."""
        return {**asdict(self), "losses": list(self.losses), "norms": list(self.norms)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` gave."""
        settings = GuardSettings(**value["settings"])
        guard = cls(settings, value["spikes_in_a_row"], value["failures_in_a_row"], dict(value["skipped"]))
        guard.losses.extend(value["losses"])
        guard.norms.extend(value["norms"])
        return guard

    def _failed(self, verdict: Verdict) -> Verdict:
        self.failures_in_a_row += 1
        return self._count(verdict)

    def _count(self, verdict: Verdict) -> Verdict:
        self.skipped[verdict] = self.skipped.get(verdict, 0) + 1
        return verdict

    def _stands_out(self, value: float, recent: deque[float], floor: float) -> bool:
        threshold = self.settings.spike_threshold
        if threshold is None or len(recent) < self.settings.window:
            return False
        median = statistics.median(recent)
        deviation = _MAD_TO_DEVIATION * statistics.median(abs(other - median) for other in recent)
        return value > median + threshold * max(deviation, floor * abs(median))
