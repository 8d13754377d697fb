"""`rung train --from`: what it hands on, what it refuses, and how gains and losses are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rung.cli.main import app
from rung.errors import UsageError
from rung.evaluation.drift import TellingWord
from rung.records import Interval, Record
from rung.runfolder import write_header
from rung.tasks import language_modelling
from rung.tasks.continuing.drifting import DriftReport
from rung.tasks.continuing.gains import Change
from rung.tasks.continuing.training import ContinuedSummary


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoints").mkdir()
    write_header(folder, {"kind": "run", "task": "text"}, [])
    return folder


def record(name: str, value: float, low: float, high: float) -> Record:
    return Record(name=name, value=value, unit="bits per byte", n=9, interval=Interval(low=low, high=high, method="b"))


def share(value: float) -> Record:
    around = Interval(low=value - 0.02, high=value + 0.02, method="b")
    return Record(name="accuracy", value=value, unit="share", n=120, interval=around)


def summary(folder: Path) -> ContinuedSummary:
    before, after, change = (
        record("bits_per_byte", 3.4, 3.3, 3.5),
        record("bits_per_byte", 2.8, 2.7, 2.9),
        record("change on new text", -0.6, -0.7, -0.5),
    )
    missing = Record(name="x", value=None, unit="bits per byte", n=0, not_measured="it is gone")
    untold = Record(name="x", value=None, unit="share", n=0, not_measured="the table has changed")
    null = record("divergence of words, old text against itself", 0.01, 0.005, 0.02)
    return ContinuedSummary(
        run=folder,
        ended="finished",
        steps=5,
        tokens=100,
        epochs=0.5,
        parameters=1000,
        seconds=1.0,
        tokens_per_second=100.0,
        bits_per_byte=after,
        floors=(),
        sample="",
        plan={},
        task_scores=(
            Change("/where/films/reviews.csv", share(0.50), share(0.58), share(0.08), majority=0.625),
            Change("gone.csv", share(0.40), untold, untold, majority=0.5),
        ),
        changes=(Change("new text", before, after, change), Change("old text", before, missing, missing)),
        drift=DriftReport((record("divergence of words", 0.2, 0.1, 0.3), null), (TellingWord("thou", 9.0, 5, 0),), ()),
        distance=0.12,
    )


def test_wishes_are_handed_on_and_the_report_is_shown(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def carry_on(
        parent: Path,
        texts: list[Path],
        *,
        replay: float,
        penalty: float,
        tasks: list[Path],
        target: str | None,
        steps: int,
        minutes: float | None,
        overrides: dict[str, Any],
        **others: Any,
    ) -> ContinuedSummary:
        seen.update(locals())
        return summary(run)

    carry_on.__signature__ = __import__("inspect").signature(language_modelling.carry_on)  # type: ignore[attr-defined]
    monkeypatch.setattr(language_modelling, "carry_on", carry_on)
    asked = ["--replay", "0.1", "--penalty", "2", "--steps", "5", "--set", "training.learning_rate=0.001"]
    asked += ["--eval", "reviews.csv", "--eval", "gone.csv", "--target", "stars"]
    result = CliRunner().invoke(app, ["train", "--from", str(run), "new.txt", *asked])
    assert result.exit_code == 0, result.output
    assert (seen["parent"], seen["texts"]) == (run, [Path("new.txt")])
    assert (seen["replay"], seen["penalty"], seen["steps"]) == (0.1, 2.0, 5)
    assert seen["overrides"] == {"training.learning_rate": 0.001}
    assert (seen["tasks"], seen["target"]) == ([Path("reviews.csv"), Path("gone.csv")], "stars")
    for told in (
        "Task scores",
        "  films/reviews.csv  0.625",
        "+0.080",
        "[+0.060, +0.100]  120",
        "the table has changed",
    ):
        assert told in result.stdout
    for told in ("Gained and lost", "-0.600", "not measured", "12.0%", "Drift", "thou", "--replay 0.1"):
        assert told in result.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["new.txt", "--replay", "0.1"], "--replay means nothing without --from"),
        (["new.txt", "--penalty", "1"], "--penalty means nothing without --from"),
        (["new.txt", "--eval", "a.csv"], "--eval means nothing without --from"),
        (["--resume", "RUN", "--eval", "a.csv"], "--eval means nothing without --from"),
        (["--from", "RUN", "new.txt", "--target", "label"], "--target cannot be given"),
        (["--from", "RUN", "new.txt", "--net", "lstm"], "--net cannot be given"),
        (["--from", "RUN", "new.txt", "--extend", "RUN"], "contradict"),
        (["--from", "RUN", "--dry-run"], "no text"),
        (["new.txt", "--replay", "0.1", "--dry-run"], "--replay means nothing without --from"),
        (["--resume", "RUN", "--dry-run"], "contradict"),
        (["--from", "RUN"], "no text"),
    ],
)
def test_what_contradicts_it_is_refused(run: Path, arguments: list[str], problem: str) -> None:
    result = CliRunner().invoke(app, ["train", *(str(run) if word == "RUN" else word for word in arguments)])
    assert result.exit_code == UsageError.exit_code
    assert problem in result.output


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_run_that_cannot_be_carried_on_is_told_by_the_option(run: Path, more: list[str]) -> None:
    header = json.loads((run / "rung.json").read_text())
    (run / "rung.json").write_text(json.dumps({**header, "task": "word-vectors"}))
    result = CliRunner().invoke(app, ["train", "--from", str(run), "new.txt", *more])
    assert result.exit_code == UsageError.exit_code
    assert "--from means nothing with a run of the task 'word-vectors'" in result.output


def test_help_tells_it_from_extend() -> None:
    shown = " ".join(CliRunner().invoke(app, ["train", "--help"]).output.split())
    assert "with its own text for longer" in shown
    assert "lost on the old" in shown
