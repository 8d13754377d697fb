"""`rung learning`: the log is read as it was written, what stands out is said, the page tells it all."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))

from browser import Browser, find_chromium

from rung.cli.main import app
from rung.comparison.learning.findings import findings
from rung.comparison.learning.page import write_learning
from rung.comparison.learning.reading import Learning, read_learning
from rung.errors import RunFolderError

LAYERS = ["embed_tokens", *(f"layers.{n}" for n in range(12)), "norm", "lm_head"]


def step(number: int, loss: float) -> dict[str, Any]:
    return {"step": number, "loss": loss, "learning_rate_factor": 1.0, "gradient_norm": 0.5 + 1 / number}


def look(number: int, reach: int = 30, **statistics: float) -> dict[str, Any]:
    values = {"gradient_norm": 0.1, "weight_norm": 3.0, "update_ratio": 1e-3, "mean": 0.0, "std": 0.5} | statistics
    curve = [[distance, 0.01 ** (distance / reach)] for distance in range(0, 64, 3)]
    signs = {
        "layers": dict.fromkeys(LAYERS, values),
        "gradient_reach": {"steps": reach, "longest": 63, "curve": curve},
        "seconds": 0.01,
    }
    return {"step": number, "vital_signs": signs}


def run_folder(folder: Path, *, loss: float = 2.0, looks: int = 6, **statistics: Any) -> Path:
    folder.mkdir(parents=True)
    lines: list[dict[str, Any]] = []
    for number in range(1, 61):
        lines.append(step(number, loss))
        if number % (60 // looks) == 0:
            lines.append(look(number, **statistics))
        if number % 20 == 0:
            lines.append({"step": number, "validation": {"criterion": loss, "loss": loss}})
    lines.append({"step": 60, "refused": "spike", "loss": "9.0", "gradient_norm": "nan", "samples": [1, 2]})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def read(folder: Path) -> Learning:
    (run,) = read_learning([folder])
    return run


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = read(run_folder(tmp_path / "mine"))
    assert (run.name, run.unit, run.layers) == ("mine", "loss", LAYERS)
    assert len(run.steps) == 60
    assert run.validations == ((20, 2.0), (40, 2.0), (60, 2.0))
    assert run.series("norm", "std") == [(number, 0.5) for number in range(10, 61, 10)]
    assert [reach.steps for reach in run.reaches_while_learning()] == [30] * 5


def test_a_run_can_be_looked_at_while_it_writes(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "mine")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 61, "lo')
    assert len(read(folder).steps) == 60


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no record of training"):
        read(tmp_path / "nothing")
    folder = run_folder(tmp_path / "mine")
    path = folder / "metrics.jsonl"
    good = path.read_text()
    for damage, problem in (("not json\n", "no JSON"), ("[1]\n", "no step"), ('{"loss": 1}\n', "no step")):
        path.write_text(damage + good)
        with pytest.raises(RunFolderError, match=problem) as caught:
            read(folder)
        assert "metrics.jsonl:1" in str(caught.value)
    path.write_text("")
    with pytest.raises(RunFolderError, match="not logged a step"):
        read(folder)


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path / name / "run") for name in ("a", "b")]
    assert [run.name for run in read_learning(folders)] == ["a/run", "b/run"]


@pytest.mark.parametrize(
    ("statistics", "said"),
    [
        ({}, None),
        ({"update_ratio": 0.3}, "lower learning rate"),
        ({"update_ratio": 1e-8}, "hardly moves"),
        ({"without_gradient": 0.6}, "60% of the units of embed_tokens get no gradient"),
        ({"saturated": 0.8}, "80% of what embed_tokens puts out is saturated"),
        ({"reach": 4}, "4 steps back the gradient is below 1 %"),
    ],
)
def test_only_what_stands_out_is_said(tmp_path: Path, statistics: dict[str, Any], said: str | None) -> None:
    told = findings(read(run_folder(tmp_path / "mine", **statistics)))
    assert bool(told) == (said is not None)
    assert said is None or said in told[0]


def test_a_solved_task_is_no_vanishing_gradient(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "mine", reach=3)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if "loss" in line and "refused" not in line and line["step"] > 25:
            line["loss"] = 0.01
        if "vital_signs" in line and line["step"] < 25:
            line["vital_signs"]["gradient_reach"]["steps"] = 63
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read(folder)
    assert [reach.steps for reach in run.reaches_while_learning()] == [63]
    assert findings(run) == []


def test_the_command_writes_the_page_and_says_what_stands_out(tmp_path: Path) -> None:
    one, other = run_folder(tmp_path / "<rnn>", reach=4), run_folder(tmp_path / "lstm")
    out = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["learning", str(one), str(other), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["page"] == str(out)
    assert len(told["findings"]) == 1
    text = out.read_text()
    assert "<rnn>" not in text
    assert text.count("<svg") == 8
    for layer in ("embed_tokens", "lm_head"):
        assert layer in text
    alone = CliRunner().invoke(app, ["learning", str(other)])
    assert alone.exit_code == 0
    assert (other / "learning.html").is_file()
    missing = CliRunner().invoke(app, ["learning", str(tmp_path / "none")])
    assert missing.exit_code == 1


# --- in a browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine: the page is not looked at in a browser")
    with Browser(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module", params=["two", "seven", "bare"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    if request.param == "bare":
        bare = run_folder(folder / "bare")
        kept = [line for line in (bare / "metrics.jsonl").read_text().splitlines() if "vital_signs" not in line]
        (bare / "metrics.jsonl").write_text("\n".join(kept) + "\n")
        folders = [bare]
    else:
        count = {"two": 2, "seven": 7}[request.param]
        folders = [run_folder(folder / f"run {'long' * 12} {n}", saturated=0.1 * n) for n in range(count)]
    out = folder / "learning.html"
    write_learning(folders, out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_page_stands_alone(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("[...document.querySelectorAll('svg')].every(one => one.getBoundingClientRect().width > 0)")
    colours = "getComputedStyle(document.documentElement).getPropertyValue('--run-1').trim()"
    assert browser.evaluate(colours) == ("#7cb9f0" if dark else "#0b62a4")
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []
