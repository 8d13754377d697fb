"""How the minutes of a comparison are divided: a stated rule, not a search.

Some time is kept for measuring and the report. Of the rest every rung gets a share by its weight below (what it costs
to train is known from its kind, not from the data) for its fits on all labels, one for each seed, and for the smaller
fits of its learning curve. What a rung leaves over is divided among the rungs above it, again by weight.
"""

from __future__ import annotations

from collections.abc import Sequence

from rung.tasks.task import Rung

_MEASURING_SHARE = 0.1
# Two cores, 2026-11-22: eight small rungs 56 s in all (a fresh process each), three with open weights 59 s.
_MEASURING_SECONDS, _MEASURING_SECONDS_OF_OPEN_WEIGHTS = 7.0, 20.0
_WEIGHT_BY_HEIGHT = {0: 0.2, 1: 1.0, 2: 3.0, 3: 2.0, 4: 2.0, 5: 3.0, 6: 3.0, 7: 5.0, 8: 5.0, 9: 4.0}


def seconds_for_fitting(seconds: float, rungs: Sequence[Rung]) -> float:
    """What is left of the whole time once measuring and reporting these rungs is taken off; at least half."""
    each = (
        _MEASURING_SECONDS_OF_OPEN_WEIGHTS if rung.is_pretrained_language_model else _MEASURING_SECONDS
        for rung in rungs
    )
    return max(seconds - max(_MEASURING_SHARE * seconds, sum(each)), seconds / 2)


def share_of_time(rungs: Sequence[Rung], position: int, seconds_left: float) -> float:
    """Seconds for all fits of `rungs[position]`, when `seconds_left` are there for it and all above it."""
    weights = [_WEIGHT_BY_HEIGHT[rung.height] for rung in rungs[position:]]
    return seconds_left * weights[0] / sum(weights)
