"""How the minutes of a comparison are divided: a stated rule, not a search.

Some time is kept for measuring and the report. Of the rest every rung gets a share by its weight below (what it costs
to train is known from its kind, not from the data) for its fits on all labels, one for each seed, and for the smaller
fits of its learning curve. What a rung leaves over is divided among the rungs above it, again by weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rung.tasks.task import Rung

_MEASURING_SHARE = 0.1
_MEASURING_SECONDS_PER_RUNG = 4.0
_WEIGHT_BY_HEIGHT = {0: 0.2, 1: 0.5, 2: 1.0, 3: 1.0, 4: 2.0, 5: 3.0, 6: 3.0, 7: 5.0, 8: 5.0, 9: 5.0}


@dataclass(frozen=True)
class Workload:
    """The fits of one rung: `fits` on all `items`, and one on each of `curve_sizes` for each of `curve_seeds`."""

    fits: int
    curve_sizes: Sequence[int]
    curve_seeds: int
    items: int

    @property
    def units(self) -> float:
        """All of them, in fits on all items; fitting is taken to cost in proportion to the items."""
        return self.fits + self.curve_seeds * sum(self.curve_sizes) / self.items


def seconds_for_fitting(seconds: float, rungs: int) -> float:
    """What is left of the whole time once measuring and reporting so many rungs is taken off; at least half."""
    measuring = max(_MEASURING_SHARE * seconds, _MEASURING_SECONDS_PER_RUNG * rungs)
    return max(seconds - measuring, seconds / 2)


def seconds_per_fit(rungs: Sequence[Rung], position: int, seconds_left: float, workload: Workload) -> float:
    """Seconds for one fit on all items of `rungs[position]`, when `seconds_left` are there for it and all above it."""
    weights = [_WEIGHT_BY_HEIGHT[rung.height] for rung in rungs[position:]]
    return seconds_left * weights[0] / sum(weights) / workload.units
