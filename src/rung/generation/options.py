"""What a generation request may ask for, checked where it enters."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rung.errors import UsageError


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen and when a text ends. UsageError for values out of range or that contradict.

    `temperature` 0 is greedy: always the likeliest token. `top_k`, `top_p`, `min_p` leave out unlikely tokens, in this
    order, after the temperature; None means no such filter. `repetition_penalty` above 1 makes tokens less likely that
    stand in the prompt or were drawn before (CTRL, arXiv 1909.05858, section 4.1). The text ends before the first of
    the `stop` strings, at an end-of-text token or one of `stop_tokens` (ids: an end of turn, say), after `max_tokens`
    tokens, or where the network's context ends.
    `seed` (0 .. 2^64 - 1) decides all draws: equal seeds give equal text, whatever else is in the batch.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    max_tokens: int = 200
    seed: int = 0
    stop_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check every value, then the values against each other."""
        if isinstance(self.stop, str):
            raise UsageError("stop must be a list of strings, not one string", where="stop")
        object.__setattr__(self, "stop", tuple(self.stop))
        _require("temperature", self.temperature, self.temperature >= 0, "a number of at least 0 (0 is greedy)")
        _require("top_p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1")
        _require("min_p", self.min_p, self.min_p is None or 0 <= self.min_p <= 1, "between 0 and 1")
        _require("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0 (1 does nothing)")
        _require_whole("top_k", self.top_k, 1, None)
        _require_whole("max_tokens", self.max_tokens, 1, None)
        _require_whole("seed", self.seed, 0, 2**64 - 1)
        if not all(self.stop):
            raise UsageError("a stop string is empty and would end every text at once", where="stop")
        filters = [name for name in ("top_k", "top_p", "min_p") if getattr(self, name) is not None]
        if self.greedy and filters:
            raise UsageError(
                f"temperature 0 always takes the likeliest token, so {' and '.join(filters)} would do nothing",
                where=filters[0],
                hint="raise the temperature, or leave the filter out",
            )

    @property
    def greedy(self) -> bool:
        """Whether no draw takes place."""
        return self.temperature == 0


def _require(name: str, value: float | None, in_range: bool, wanted: str) -> None:
    if not in_range or (value is not None and not math.isfinite(value)):
        raise UsageError(f"{name} must be {wanted}, not {value}", where=name)


def _require_whole(name: str, value: int | None, low: int, high: int | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        wanted = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise UsageError(f"{name} must be a whole number {wanted}, not {value}", where=name)
