"""How the minutes of a comparison are divided: a stated rule, not a search.

A tenth is kept for measuring and the report. Of the rest every rung gets a share by its weight below (what it costs to
train is known from its kind, not from the data); a rung runs its fits on all labels, one per seed, and the smaller fits
of its learning curve within its share. What a rung leaves over is divided among the rungs above it, again by weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rung.tasks.task import Rung

MEASURING_SHARE = 0.1
_WEIGHT_BY_HEIGHT = {0: 0.2, 1: 0.5, 2: 1.0, 3: 1.0, 4: 2.0, 5: 3.0, 6: 3.0, 7: 5.0, 8: 5.0, 9: 5.0}


@dataclass(frozen=True)
class Workload:
    """The fits of one rung: on all labels once per seed, and on each smaller size once per seed."""

    seeds: int
    curve_sizes: Sequence[int]
    items: int

    @property
    def units(self) -> float:
        """All fits together, in fits on all items; fitting is taken to cost in proportion to the items."""
        return self.seeds * (1 + sum(self.curve_sizes) / self.items)


def seconds_per_fit(rungs: Sequence[Rung], position: int, seconds_left: float, workload: Workload) -> float:
    """Seconds for one fit on all items of `rungs[position]`, when `seconds_left` are there for it and all above it."""
    weights = [_WEIGHT_BY_HEIGHT[rung.height] for rung in rungs[position:]]
    return seconds_left * weights[0] / sum(weights) / workload.units
