"""Many prompts asked about the same items in rounds, so that early on it is known how long it will take.

Each round asks every prompt about the next items: 8 at first, then as many as were asked before, at most 128. So the
first rounds tell what an item costs, and whenever the asking ends, every prompt was asked about the same items.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rung.errors import PlanError
from rung.progress import Progress
from rung.tasks.prompting.judging import Judge, Judgement
from rung.tasks.prompting.templates import Prompt

_FIRST, _LARGEST = 8, 128


@dataclass(frozen=True)
class Asked:
    """A judgement for each prompt, all about the first `items` texts, in their order."""

    judgements: tuple[Judgement, ...]
    items: int


def ask_in_rounds(
    judge: Judge, prompts: Sequence[Prompt], texts: Sequence[str], *, seconds: float | None, progress: Progress
) -> Asked:
    """Ask every prompt about all texts, or with `seconds` about as many of the first as that is enough for.

    How long the rest takes is told after the first round, and again whenever twice as many items were asked about.
    Raises PlanError when `seconds` are too few for the first round, and the errors of the judge.
    """
    began, told, items = time.monotonic(), 0, 0
    parts: list[list[Judgement]] = [[] for _ in prompts]
    progress.say(f"{len(prompts):,} prompts about {len(texts):,} test items: {len(prompts) * len(texts):,} questions")
    with progress.task("asking", len(prompts) * len(texts), "questions") as advance:
        each = 0.0  # seconds that all prompts together take for an item
        for planned in _rounds(len(texts)):
            some = texts[planned.start : planned.stop]
            if seconds is not None and items:
                left = seconds - (time.monotonic() - began)
                some = some[: max(0, int(left / max(each, 1e-9)))]
            if not some:
                break
            round_began, took = time.monotonic(), 0.0
            for prompt, found in zip(prompts, parts, strict=True):
                found.append(judge.judge(prompt, some))
                took += found[-1].took
                advance(len(some))
                if seconds is not None and not items and found is parts[0]:
                    _require_time(max(time.monotonic() - round_began, took) * len(prompts), len(some), seconds)
            items += len(some)
            each = max(time.monotonic() - round_began, took) / len(some)
            if items >= 2 * told and items < len(texts):
                told = items
                progress.say(_told(each * (len(texts) - items), seconds))
            if len(some) < len(planned):
                break
    return Asked(tuple(map(joined, parts)), items)


def joined(parts: Sequence[Judgement]) -> Judgement:
    """One judgement about the texts of several, one after the other."""
    starts = np.cumsum([0, *(len(part.failed) for part in parts)])
    return Judgement(
        probabilities={
            scoring: np.concatenate([part.probabilities[scoring] for part in parts])
            for scoring in parts[0].probabilities
        },
        failed=np.concatenate([part.failed for part in parts]),
        failures={
            int(start) + row: reason
            for start, part in zip(starts, parts, strict=False)
            for row, reason in part.failures.items()
        },
        usages=[usage for part in parts for usage in part.usages],
        seconds=[one for part in parts for one in part.seconds],
        one_hot=sum(part.one_hot for part in parts),
        took=sum(part.took for part in parts),
    )


def reordered(judgement: Judgement, order: NDArray[np.int64]) -> Judgement:
    """The judgement about the same texts in another order: the new text i is the old `order[i]`."""
    place = {int(old): new for new, old in enumerate(order)}
    return Judgement(
        probabilities={scoring: table[order] for scoring, table in judgement.probabilities.items()},
        failed=judgement.failed[order],
        failures=dict(sorted((place[row], reason) for row, reason in judgement.failures.items())),
        usages=judgement.usages,
        seconds=judgement.seconds,
        one_hot=judgement.one_hot,
        took=judgement.took,
    )


def _rounds(count: int) -> Iterator[range]:
    start = 0
    while start < count:
        size = min(max(_FIRST, start), _LARGEST, count - start)
        yield range(start, start + size)
        start += size


def _require_time(needed: float, items: int, seconds: float) -> None:
    if needed > seconds:
        raise PlanError(
            f"asking all prompts about {items} items would take about {needed:.0f} s, and there are {seconds:.0f} s",
            where="--minutes",
            hint="give more minutes, or fewer prompts: --shots, --draws, --templates",
        )


def _told(left: float, seconds: float | None) -> str:
    """How long the rest will take, and what to do where that is too long."""
    length = (
        f"{left / 3600:.1f} hours" if left >= 5400 else f"{left / 60:.0f} minutes" if left >= 90 else f"{left:.0f} s"
    )
    if seconds is not None:
        return f"the rest would take about {length}; as many items are asked about as there is time for"
    return (
        f"the rest takes about {length}. --limit N or --minutes M asks about fewer items; answers are kept: after "
        "Ctrl-C, the same command goes on"
    )
