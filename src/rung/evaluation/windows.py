"""Which stretch of a long text the network reads to score which tokens: each once, each with enough context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Window(NamedTuple):
    """Read the inputs `start` .. `stop` - 1; of the tokens that follow each of them, score those from `score_from` on.

    Input i stands right before target i, so the places of targets and of inputs are the same numbers.
    """

    start: int
    stop: int
    score_from: int


def sliding_windows(first: int, last: int, *, context_length: int, stride: int) -> Iterator[Window]:
    """Yield windows of at most `context_length` inputs that score the targets `first` .. `last` - 1 exactly once each.

    Inputs begin at 0. A window starts `context_length - stride` places before its first target, or at 0; so from the
    second window on, each token is predicted from more than `context_length - stride` tokens, and in the first window
    of a text from all there are. The last window moves back to be full: more context, never less.
    """
    target = first
    while target < last:
        start = max(0, target - (context_length - stride))
        stop = min(start + context_length, last)
        start = max(0, stop - context_length)
        yield Window(start, stop, target)
        target = stop
