"""How good prompting is by the number of examples shown: every template with every draw, on the same test items.

Nothing is chosen here: each point is the mean over templates and draws, what a template and examples taken at random
give. Picking the best of them needs validation items; that is what the prompted rung of a comparison does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.data.labelled import LabelledItems
from rung.errors import UsageError
from rung.evaluation.crossed import crossed_change, crossed_interval
from rung.progress import Progress
from rung.records import Interval
from rung.tasks.prompting.choosing import Setting, measured, variation
from rung.tasks.prompting.judging import Judge, Judgement, Scoring
from rung.tasks.prompting.rounds import ask_in_rounds, reordered
from rung.tasks.prompting.templates import TEMPLATES, Prompt, distinct_prompts

LARGEST_SHOTS = 64


@dataclass(frozen=True)
class CurveWish:
    """Numbers of examples, draws of each, templates, how many test items (None: all) and in how many minutes.

    Where these are too few, as many items are asked about as they are enough for.
    """

    shots: tuple[int, ...] = (0, 1, 2, 4, 8)
    draws: int = 5
    templates: int = len(TEMPLATES)
    limit: int | None = None
    seed: int = 0
    minutes: float | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for values out of range."""
        if not self.shots or sorted(set(self.shots)) != list(self.shots) or not 0 <= self.shots[0] <= LARGEST_SHOTS:
            raise UsageError("numbers of examples must rise, from 0 on", where="--shots", hint="--shots 0,1,2,4,8")
        if self.shots[-1] > LARGEST_SHOTS:
            raise UsageError(f"at most {LARGEST_SHOTS} examples are shown, not {self.shots[-1]}", where="--shots")
        if not 1 <= self.templates <= len(TEMPLATES):
            raise UsageError(f"there are {len(TEMPLATES)} templates", where="--templates")
        if self.minutes is not None and not self.minutes > 0:
            raise UsageError(f"minutes must be more than 0, not {self.minutes}", where="--minutes")
        for name in ("draws", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}", where=f"--{name}")


@dataclass(frozen=True)
class Point:
    """The accuracy of one scoring with `shots` examples: mean over templates, draws and items, and its interval.

    `change` is against the fewest examples tried, None for these. `failed`: the share of answers that did not fit the
    context or named no label, which count as wrong. `prompt_tokens`: mean of a question with all before it.
    """

    shots: int
    scoring: Scoring
    accuracy: float
    interval: Interval
    change: float | None
    change_interval: Interval | None
    failed: float
    prompt_tokens: float | None
    prompts: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        value = asdict(self)
        for name in ("interval", "change_interval"):
            interval: Interval | None = getattr(self, name)
            value[name] = interval and interval.model_dump(mode="json")
        return value


@dataclass(frozen=True)
class PromptCurves:
    """What was measured, on `items` of the `test_items` that there are.

    `chance` guesses evenly; `majority` always says the most frequent label of training.
    """

    points: tuple[Point, ...]
    settings: tuple[Setting, ...]
    chance: float
    majority: float
    items: int
    test_items: int
    items_sha256: str
    label_names: tuple[str, ...]
    seconds: float
    questions: int
    prompt_tokens: int | None
    completion_tokens: int | None
    wish: CurveWish
    failures: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain values, the accuracy of every prompt included."""
        return {
            "points": [point.to_json() for point in self.points],
            "settings": [setting.to_json() for setting in self.settings],
            "variation": variation(self.settings),
            "chance": self.chance,
            "majority": self.majority,
            "items": self.items,
            "test_items": self.test_items,
            "items_sha256": self.items_sha256,
            "label_names": list(self.label_names),
            "seconds": round(self.seconds, 2),
            "questions": self.questions,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "wish": asdict(self.wish),
            "failures": list(self.failures),
        }


def measure_curves(
    judge: Judge,
    train: LabelledItems,
    test: LabelledItems,
    wish: CurveWish,
    *,
    progress: Progress,
    count_tokens: Callable[[Prompt, str], int] | None = None,
) -> PromptCurves:
    """Ask every prompt about the same test items, drawn from `test` by the seed; examples come from `train`.

    A larger limit, or more minutes, ask about the same items and more. `count_tokens` counts what a local model reads;
    of an endpoint, what the server counted is taken. Raises DataError when there are too few short training texts for
    the examples, PlanError when the minutes are too few, and the errors of the judge.
    """
    began = time.monotonic()
    prompts = distinct_prompts(
        test.label_names,
        train,
        np.arange(len(train)),
        shots=wish.shots,
        draws=wish.draws,
        seed=wish.seed,
        templates=TEMPLATES[: wish.templates],
    )
    drawn = np.random.default_rng(wish.seed).permutation(len(test))[: wish.limit]
    answers = ask_in_rounds(
        judge,
        [prompt for prompt, _ in prompts],
        test.take(drawn).texts,
        seconds=None if wish.minutes is None else 60 * wish.minutes,
        progress=progress,
    )
    drawn = drawn[: answers.items]
    if answers.items < min(len(test), wish.limit or len(test)):
        progress.say(
            f"for want of time {answers.items:,} of {len(test):,} test items were asked about, drawn at random: "
            f"intervals are wider; --limit {answers.items} asks about the same without a clock"
        )
    order, tally = np.argsort(drawn), _Tally()
    asked = test.take(drawn[order])
    for (prompt, draw), judgement in zip(prompts, answers.judgements, strict=True):
        tally.add(prompt, draw, reordered(judgement, order), asked, count_tokens)
    counts = np.bincount(train.labels, minlength=len(test.label_names))
    return PromptCurves(
        points=tuple(tally.points(wish)),
        settings=tuple(tally.settings),
        chance=1 / len(test.label_names),
        majority=float((asked.labels == counts.argmax()).mean()),
        items=len(asked),
        test_items=len(test),
        items_sha256=asked.sha256,
        label_names=test.label_names,
        seconds=time.monotonic() - began,
        questions=len(prompts) * len(asked),
        prompt_tokens=tally.sum_tokens("prompt"),
        completion_tokens=tally.sum_tokens("completion"),
        wish=wish,
        failures=tuple(dict.fromkeys(tally.failures))[:20],
    )


class _Tally:
    """What the judgements add up to: a table templates x draws x items for each number of examples and scoring."""

    def __init__(self) -> None:
        self.settings: list[Setting] = []
        self.failures: list[str] = []
        self._right: dict[tuple[int, Scoring], dict[str, dict[int, NDArray[np.bool_]]]] = {}
        self._failed: dict[int, list[float]] = {}
        self._tokens: dict[int, list[int]] = {}
        self._completion: list[int] = []
        self._is_counted = True

    def add(
        self,
        prompt: Prompt,
        draw: int,
        judgement: Judgement,
        asked: LabelledItems,
        count_tokens: Callable[[Prompt, str], int] | None,
    ) -> None:
        shots, template = len(prompt.examples), prompt.template.name
        self.settings += measured(prompt, draw, judgement, asked.labels)
        self.failures += judgement.failures.values()
        for scoring, probabilities in judgement.probabilities.items():
            right = (probabilities.argmax(axis=1) == asked.labels) & ~judgement.failed
            self._right.setdefault((shots, scoring), {}).setdefault(template, {})[draw] = right
        self._failed.setdefault(shots, []).append(float(judgement.failed.mean()))
        if count_tokens is not None:
            self._tokens.setdefault(shots, []).extend(count_tokens(prompt, text) for text in asked.texts)
            return
        known = [usage for usage in judgement.usages if usage is not None]
        self._is_counted &= len(known) == len(judgement.usages)
        self._tokens.setdefault(shots, []).extend(usage.prompt_tokens for usage in known)
        self._completion += [usage.completion_tokens for usage in known]

    def sum_tokens(self, kind: str) -> int | None:
        """All tokens read or written; None where the server did not count them, or nothing is written."""
        if kind == "prompt":
            return sum(map(sum, self._tokens.values())) if self._is_counted else None
        return sum(self._completion) if self._completion and self._is_counted else None

    def points(self, wish: CurveWish) -> list[Point]:
        """One point for each number of examples and each scoring."""
        first: dict[Scoring, NDArray[np.bool_]] = {}
        found = []
        for (shots, scoring), by_template in self._right.items():
            table = np.array([[by_draw[draw] for draw in sorted(by_draw)] for by_draw in by_template.values()])
            start = first.setdefault(scoring, table)
            is_first = start is table
            tokens = self._tokens.get(shots)
            found.append(
                Point(
                    shots=shots,
                    scoring=scoring,
                    accuracy=float(table.mean()),
                    interval=crossed_interval(table, seed=wish.seed),
                    change=None if is_first else float(table.mean() - start.mean()),
                    change_interval=None if is_first else crossed_change(start, table, seed=wish.seed),
                    failed=float(np.mean(self._failed[shots])),
                    prompt_tokens=float(np.mean(tokens)) if tokens and self._is_counted else None,
                    prompts=table.shape[0] * table.shape[1],
                )
            )
        return found


def parse_shots(text: str) -> tuple[int, ...]:
    """Read `0,1,2,4,8`. Raises UsageError."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"these are no numbers: {text}", where="--shots", hint="--shots 0,1,2,4,8") from error
