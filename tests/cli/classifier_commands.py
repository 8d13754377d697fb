"""A small table of messages, and the commands on classifiers run on it in this process."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from rung.cli.main import app
from rung.comparison.result import MEASURED_METRICS, Comparison

CHEAP = "majority,naive-bayes"
SPAM = ["win", "prize", "cash", "free", "claim", "call", "now", "urgent", "offer", "reward"]
HAM = ["lunch", "home", "later", "okay", "meeting", "love", "mum", "see", "tomorrow", "train"]
Row = tuple[object, ...]


def rows(count: int = 300, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of eight words, no two alike, most of which tell the label."""
    draw = random.Random(seed)  # noqa: S311
    found = []
    for number in range(count):
        label = "spam" if draw.random() < 0.4 else "ham"
        mostly, other = (SPAM, HAM) if label == "spam" else (HAM, SPAM)
        words = [draw.choice(mostly if draw.random() < 0.85 else other) for _ in range(8)]
        found.append((f"{' '.join(words)} {seed}x{number}", label))
    return found


def write(path: Path, content: Sequence[Row], header: Row = ("text", "label"), encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([header, *content])
    return path


def run(*arguments: object) -> Result:
    """The command in this process; what is no RungError is raised, so no traceback can pass as a message."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def compare(data: Path, out: Path, *more: object, rungs: str = CHEAP) -> Result:
    return run("compare", data, "--out", out, "--rungs", rungs, "--seeds", 1, "--minutes", 1, "--threads", 1, *more)


def refused(done: Result, code: int, *told: str) -> None:
    """A message on standard error with all of these words, nothing on standard output."""
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    message = done.stderr[done.stderr.index("Error: ") :]
    for words in told:
        assert words in message


def last_object(done: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def without_measured(report: Path) -> dict[str, Any]:
    """report.json without what carries a time, a memory or an energy, and without the command behind it."""
    found = Comparison.model_validate_json(report.read_text(encoding="utf-8"))
    content = found.model_dump(mode="json", exclude={"created", "seconds", "pareto", "not_measured", "command"})
    for rung in content["rungs"]:
        rung["metrics"] = [record for record in rung["metrics"] if record["name"] not in MEASURED_METRICS]
    return content
