"""Curves over examples: against a judge whose answers are known, and a tiny model all the way to the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scripted_server import labelled

from rung.errors import RunFolderError, UsageError
from rung.progress import SILENT
from rung.tasks.prompting.costs import Usage
from rung.tasks.prompting.curves import CurveWish, measure_curves, parse_shots
from rung.tasks.prompting.endpoint import Failed
from rung.tasks.prompting.judging import Judgement, WritingJudge
from rung.tasks.prompting.opening import open_model
from rung.tasks.prompting.templates import TEMPLATES, Prompt

NAMES = ("ham", "spam")
TEST = labelled([f"text {number}" for number in range(20)], [number % 2 for number in range(20)], NAMES)
TRAIN = labelled([f"shown {number}" for number in range(30)], [int(number > 9) for number in range(30)], NAMES)


class Knowing:
    """Right on the first 10 + 2 x examples items; the second template is one item worse; text 19 gets no answer."""

    scorings = ("parsed",)
    num_parameters = None

    def judge(self, prompt: Prompt, texts: Sequence[str], *, workers: int | None = None) -> Judgement:
        del workers
        right = 10 + 2 * len(prompt.examples) - (prompt.template is TEMPLATES[1])
        numbers = [int(text.split()[1]) for text in texts]
        said = [number % 2 if number < right else 1 - number % 2 for number in numbers]
        failed = np.array([number == 19 for number in numbers])
        failures = dict.fromkeys(np.flatnonzero(failed).tolist(), "no answer")
        usages: list[Usage | None] = [Usage(5 + len(prompt.examples), 1) for _ in texts]
        return Judgement({"parsed": np.eye(2)[said]}, failed, failures, usages)

    def sample(self, prompt: Prompt, text: str, *, samples: int, temperature: float) -> list[str]:
        raise NotImplementedError


def test_points_are_means_over_templates_draws_and_items() -> None:
    found = measure_curves(Knowing(), TRAIN, TEST, CurveWish((0, 1, 4), draws=3, templates=2), progress=SILENT)
    assert [point.accuracy for point in found.points] == pytest.approx([9.5 / 20, 11.5 / 20, 17.5 / 20])
    assert [point.change for point in found.points] == [None, pytest.approx(2 / 20), pytest.approx(8 / 20)]
    assert [point.prompts for point in found.points] == [2, 6, 6]
    assert [point.prompt_tokens for point in found.points] == [5, 6, 9]
    assert all(point.failed == pytest.approx(1 / 20) for point in found.points)
    assert (found.chance, found.majority) == (0.5, 0.5)
    assert found.questions == 14 * 20
    assert found.prompt_tokens == 20 * (2 * 5 + 6 * 6 + 6 * 9)
    assert found.completion_tokens == found.questions
    for point in found.points[1:]:
        assert point.change_interval is not None
        assert point.change_interval.low <= (point.change or 0) <= point.change_interval.high
    assert found.points[2].change_interval is not None
    assert found.points[2].change_interval.low > 0
    json.dumps(found.to_json(), allow_nan=False)


def test_a_limit_asks_about_a_sample_that_the_seed_decides() -> None:
    asked = [
        measure_curves(Knowing(), TRAIN, TEST, CurveWish((0,), limit=6, seed=seed), progress=SILENT).items_sha256
        for seed in (1, 1, 2)
    ]
    assert asked[0] == asked[1] != asked[2]


@pytest.mark.parametrize(
    "wish",
    [
        {"shots": ()},
        {"shots": (4, 1)},
        {"shots": (1, 1)},
        {"shots": (-1, 2)},
        {"shots": (0, 65)},
        {"draws": 0},
        {"templates": 4},
        {"limit": 0},
        {"minutes": 0.0},
    ],
)
def test_wishes_out_of_range_are_refused(wish: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        CurveWish(**wish)  # type: ignore[arg-type]


def test_shots_are_read() -> None:
    assert parse_shots("0,2, 8") == (0, 2, 8)
    with pytest.raises(UsageError, match="no numbers"):
        parse_shots("0,many")


class Writer:
    """Writes "Spam." to prizes, nonsense to lunch, and has no room for the rest."""

    num_parameters = 1

    def label_logprobs(self, prompt: Prompt, texts: Sequence[str]) -> list[Failed]:
        raise NotImplementedError

    def write(
        self, prompt: Prompt, texts: Sequence[str], *, samples: int, temperature: float, max_tokens: int
    ) -> list[list[str] | Failed]:
        del prompt, max_tokens
        assert (samples, temperature) == (1, 0.0)
        known = {"prize": " Spam.", "lunch": "eggs"}
        return [[known[text]] if text in known else Failed("too long") for text in texts]


def test_what_is_written_becomes_a_label_or_a_failure() -> None:
    found = WritingJudge(Writer()).judge(Prompt(TEMPLATES[0], NAMES), ["prize", "lunch", "x"])
    np.testing.assert_array_equal(found.probabilities["parsed"], [[0, 1], [0.5, 0.5], [0.5, 0.5]])
    assert found.failures == {1: "names no label: 'eggs'", 2: "too long"}
    assert found.one_hot == 1


@pytest.mark.parametrize(
    ("target", "asked", "problem"),
    [
        ("http://127.0.0.1:9/v1", {"by": "scoring"}, "does not tell how likely"),
        ("http://127.0.0.1:9/v1", {"chat": True}, "for a model on this machine"),
        ("somewhere", {"max_cost": 1.0}, "has no price"),
    ],
)
def test_contradictory_wishes_are_refused(target: str, asked: dict[str, object], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        open_model(target, label_names=NAMES, say=print, **asked)  # type: ignore[arg-type]


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        open_model(str(tmp_path / "nowhere"), label_names=NAMES, say=print)
