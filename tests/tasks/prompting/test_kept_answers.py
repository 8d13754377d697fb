"""Answers of a local model are kept, asked in rounds, and joined to what one asking gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scripted_server import labelled

from rung.errors import PlanError
from rung.progress import SILENT, SilentProgress
from rung.tasks.prompting import rounds
from rung.tasks.prompting.cache import ResponseCache
from rung.tasks.prompting.curves import CurveWish, measure_curves
from rung.tasks.prompting.judging import Judgement
from rung.tasks.prompting.kept import KeptJudge
from rung.tasks.prompting.rounds import ask_in_rounds, reordered
from rung.tasks.prompting.templates import TEMPLATES, Prompt

NAMES = ("ham", "spam")
TEST = labelled([f"text {number}" for number in range(40)], [number % 2 for number in range(40)], NAMES)
TRAIN = labelled([f"shown {number}" for number in range(30)], [int(number > 9) for number in range(30)], NAMES)
PROMPTS = [Prompt(template, NAMES) for template in TEMPLATES[:2]]


class Guessing:
    """Probabilities that depend on the text; each third has no answer. Interrupted after `patience` calls."""

    scorings = ("sum",)
    num_parameters = 7

    def __init__(self, patience: int = 1_000_000) -> None:
        self.asked: list[Sequence[str]] = []
        self.patience = patience

    def judge(self, prompt: Prompt, texts: Sequence[str], *, workers: int | None = None) -> Judgement:
        del workers
        if len(self.asked) == self.patience:
            raise KeyboardInterrupt
        self.asked.append(texts)
        draw = [np.random.default_rng([len(prompt.prefix), int(text.split()[1])]).random() for text in texts]
        failures = {row: f"no answer to {text}" for row, text in enumerate(texts) if int(text.split()[1]) % 3 == 0}
        failed = np.array([row in failures for row in range(len(texts))])
        return Judgement({"sum": np.array([[one, 1 - one] for one in draw])}, failed, failures, one_hot=1)

    def sample(self, prompt: Prompt, text: str, *, samples: int, temperature: float) -> list[str]:
        raise NotImplementedError


class Listening(SilentProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


class Clock:
    """Each judgement takes a second an item."""

    def __init__(self, judge: Guessing) -> None:
        self.judge = judge

    def monotonic(self) -> float:
        return float(sum(map(len, self.judge.asked)))


def kept(judge: Guessing, folder: Path) -> KeptJudge:
    cache = ResponseCache(folder, pytest.fail)
    return KeptJudge(judge, cache, {"weights_sha256": "a"}, lambda prompt, text: list(f"{prompt}{text}".encode()))


def test_rounds_ask_what_one_asking_asks() -> None:
    judge, texts = Guessing(), TEST.texts
    asked = ask_in_rounds(judge, PROMPTS, texts, seconds=None, progress=SILENT)
    assert [len(some) for some in judge.asked] == [8, 8, 8, 8, 16, 16, 8, 8]
    for prompt, found in zip(PROMPTS, asked.judgements, strict=True):
        once = judge.judge(prompt, texts)
        np.testing.assert_array_equal(found.probabilities["sum"], once.probabilities["sum"])
        np.testing.assert_array_equal(found.failed, once.failed)
        assert found.failures == once.failures
        order = np.arange(40)[::-1].copy()
        turned, meant = reordered(found, order), judge.judge(prompt, texts[::-1])
        np.testing.assert_array_equal(turned.probabilities["sum"], meant.probabilities["sum"])
        assert turned.failures == meant.failures
        assert list(turned.failures) == sorted(turned.failures)


def test_an_interrupted_asking_goes_on_and_gives_the_same(tmp_path: Path) -> None:
    wish = CurveWish((0, 2), draws=2, templates=2)
    whole = measure_curves(Guessing(), TRAIN, TEST, wish, progress=SILENT)
    with pytest.raises(KeyboardInterrupt):
        measure_curves(kept(Guessing(patience=9), tmp_path), TRAIN, TEST, wish, progress=SILENT)
    second = Guessing()
    resumed = measure_curves(kept(second, tmp_path), TRAIN, TEST, wish, progress=SILENT)
    assert len(second.asked) == 4 * 6 - 9, "four rounds of six prompts, less what was kept"
    assert (resumed.points, resumed.settings, resumed.failures) == (whole.points, whole.settings, whole.failures)
    third = Guessing(patience=0)
    again = measure_curves(kept(third, tmp_path), TRAIN, TEST, wish, progress=SILENT)
    assert again.points == whole.points


def test_a_larger_limit_asks_about_the_new_items_alone(tmp_path: Path) -> None:
    small, large = Guessing(), Guessing()
    measure_curves(kept(small, tmp_path), TRAIN, TEST, CurveWish((0,), templates=1, limit=16), progress=SILENT)
    measure_curves(kept(large, tmp_path), TRAIN, TEST, CurveWish((0,), templates=1, limit=32), progress=SILENT)
    assert [len(some) for some in (*small.asked, *large.asked)] == [8, 8, 16]


def test_how_long_it_takes_is_told_before_most_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, progress = Guessing(), Listening()
    monkeypatch.setattr(rounds, "time", Clock(judge))
    ask_in_rounds(judge, PROMPTS, TEST.texts, seconds=None, progress=progress)
    first, second, *later = progress.said
    assert first == "2 prompts about 40 test items: 80 questions"
    assert "the rest takes about 64 s" in second
    assert "--limit N or --minutes M" in second
    assert len(later) == 2


def test_minutes_leave_items_out_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, progress = Guessing(), Listening()
    monkeypatch.setattr(rounds, "time", Clock(judge))
    wish = CurveWish((0,), templates=2, minutes=50 / 60)
    found = measure_curves(judge, TRAIN, TEST, wish, progress=progress)
    assert (found.items, found.test_items) == (25, 40)
    assert "25 of 40 test items were asked about, drawn at random" in progress.said[-1]
    limited = measure_curves(Guessing(), TRAIN, TEST, CurveWish((0,), templates=2, limit=25), progress=SILENT)
    assert (limited.points, limited.items_sha256) == (found.points, found.items_sha256)
    whole = measure_curves(Guessing(), TRAIN, TEST, CurveWish((0,), templates=2), progress=SILENT)
    widths = [one.points[0].interval.high - one.points[0].interval.low for one in (found, whole)]
    assert widths[0] > widths[1]


def test_minutes_too_few_for_the_first_items_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Guessing()
    monkeypatch.setattr(rounds, "time", Clock(judge))
    with pytest.raises(PlanError, match="about 8 items would take about 16 s, and there are 6 s"):
        measure_curves(judge, TRAIN, TEST, CurveWish((0,), templates=2, minutes=0.1), progress=SILENT)
    assert len(judge.asked) == 1
