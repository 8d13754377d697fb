"""Which rung overtakes which, and when: the ladder's order may differ from budget to budget, and that is a result."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from rung.comparison.language_models.result import CurvePoint

_LEAST_GAP = 0.003  # bits per byte: closer curves are the same curve


def crossing_seconds(lower: Sequence[CurvePoint], higher: Sequence[CurvePoint]) -> float | None:
    """From when on the second curve stays better (fewer bits) than the first; 0: always; None: it never is.

    Both are read at the validations of either, by straight lines between their own points; nothing is said about times
    that one of them does not reach. A single point (a counted model) holds from its own time on.
    """
    times = sorted({point.seconds for point in (*lower, *higher)})
    begin = max(lower[0].seconds, higher[0].seconds)
    end = min(_end(lower), _end(higher))
    times = [time for time in times if begin <= time <= end] or [begin]
    gaps = [_at(lower, time) - _at(higher, time) for time in times]
    if gaps[-1] < _LEAST_GAP:
        return None
    behind = [number for number, gap in enumerate(gaps) if gap < _LEAST_GAP]
    if not behind:
        return 0.0
    number = behind[-1]
    before, after = gaps[number], gaps[number + 1]
    share = (_LEAST_GAP - before) / (after - before)
    return times[number] + share * (times[number + 1] - times[number])


def crossing_sentences(curves: Sequence[tuple[str, Sequence[CurvePoint]]]) -> list[str]:
    """What happens between each rung and the next above it, and between the lowest and the highest."""
    pairs = list(itertools.pairwise(curves))
    if len(curves) > 2:
        pairs.append((curves[0], curves[-1]))
    return [_sentence(lower, higher) for lower, higher in pairs]


def _sentence(lower: tuple[str, Sequence[CurvePoint]], higher: tuple[str, Sequence[CurvePoint]]) -> str:
    seconds = crossing_seconds(lower[1], higher[1])
    if seconds is None:
        return f"{higher[0]} has not overtaken {lower[0]} by the end, on validation text."
    if seconds == 0:
        return f"{higher[0]} is ahead of {lower[0]} at every time that both were validated."
    return f"{higher[0]} overtakes {lower[0]} after {_duration(seconds)} of training."


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _end(curve: Sequence[CurvePoint]) -> float:
    return math.inf if len(curve) == 1 else curve[-1].seconds


def _at(curve: Sequence[CurvePoint], seconds: float) -> float:
    """The curve at a time, along straight lines."""
    for before, after in itertools.pairwise(curve):
        if before.seconds <= seconds <= after.seconds:
            share = (seconds - before.seconds) / max(after.seconds - before.seconds, 1e-9)
            return before.bits_per_byte + share * (after.bits_per_byte - before.bits_per_byte)
    return curve[-1].bits_per_byte
