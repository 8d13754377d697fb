"""`rung compare`, `rung predict` and `rung eval` on classifiers as a user meets them: results, refusals, interruptions.

Everything runs for real on a small table and rungs that fit in milliseconds, except that no figures are drawn and costs
are not measured again in a process of their own for every test. What is pinned of a refusal is its exit code, the
problem, the place or the way out, and that `--json` ends standard output with one object all the same.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rung.cli.main import app
from rung.comparison.result import MEASURED_METRICS, Comparison
from rung.tasks.loading import load_predictor

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks" / "prompting"))
from scripted_server import ScriptedServer, completion, error, prompt_of, reply, serving

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


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Costs as if measured, a page without drawings, and minutes that count from the command, not the test process."""
    agreed = {"exact_rate": 1.0, "flip_rate": 0.0, "max_difference": 0.0}

    def probe(folder: Path, inputs: list[str], **_options: object) -> dict[str, Any]:
        predicted = load_predictor(folder).predict(inputs, batch_size=32)
        return {
            "load_seconds": 0.1,
            "latency_1": [1e-4] * 20,
            "latency_32": [1e-3] * 20,
            "items_per_second": 1e4,
            "energy": None,
            "peak_memory": 1 << 20,
            "numbers": predicted.numbers.tolist(),
            "answers": predicted.answers,
            "determinism": {"same_process": agreed, "batch_size": agreed, "companions": agreed, "threads": None},
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rung.comparison.measuring._probe", probe)
        patch.setattr("rung.comparison.report.html_page", lambda comparison: f"<p>{comparison.verdict.sentence}")
        patch.setattr("rung.cli.comparing.command_started", time.monotonic)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "messages.csv", rows())


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder of a finished comparison, and what the command said."""
    out = tmp_path_factory.mktemp("finished") / "two words"
    return out, compare(data, out)


@pytest.fixture(scope="module")
def rung_folder(finished: tuple[Path, Result]) -> Path:
    return finished[0] / "rungs" / "naive-bayes"


# rung compare: what a finished one says -------------------------------------------------------------------------------


def test_a_comparison_ends_with_verdict_ladder_and_what_to_use(finished: tuple[Path, Result]) -> None:
    out, done = finished
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    found = Comparison.model_validate_json((out / "report.json").read_text(encoding="utf-8"))
    assert lines[0] == found.verdict.sentence
    assert [line.split()[0] for line in lines[2:5]] == ["Rung", "majority", "naive-bayes"]
    assert f"report   {out / 'report.html'}" in lines
    assert found.verdict.answer == "yes"
    assert lines[-1] == f"use      rung predict '{out / 'rungs' / 'naive-bayes'}' \"some text\""


def test_what_was_guessed_is_said_while_it_can_still_be_stopped(finished: tuple[Path, Result]) -> None:
    told = finished[1].stderr
    assert "The label is taken from column 'label', by its name (2 values)." in told
    assert told.index("The text is taken from column 'text'") < told.index("majority: ")


def test_with_json_the_last_line_is_the_report_and_where_it_lies(finished: tuple[Path, Result], data: Path) -> None:
    out, _ = finished
    done = compare(data, out, "--resume", "--json")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("\n") == 1
    found = last_object(done)
    assert found.pop("out") == str(out)
    assert found == json.loads((out / "report.json").read_text(encoding="utf-8"))


# rung compare: data that cannot be used -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([(text, "one") for text, _ in rows(50)], ("all 50 rows have the same label, 'one'", "bad.csv", "other class")),
        (rows(10), ("10 labelled rows are too few", "at least 20", "label more rows")),
        ([], ("the table has no rows", "bad.csv")),
        ([("", label) for _, label in rows(50)], ("no column holds text", "bad.csv", "--text COLUMN")),
        ([(text, "NaN") for text, _ in rows(50)], ("no row has both a text and a label", "50 rows: no label")),
        ([(text, f"id-{number}") for number, (text, _) in enumerate(rows(50))], ("it is an id", "--target COLUMN")),
        ([(text, number / 7) for number, (text, _) in enumerate(rows(50))], ("regression", "few ranges")),
        ([(text, number % 40) for number, (text, _) in enumerate(rows(50))], ("regression", "few ranges")),
    ],
    ids=["one class", "ten rows", "no rows", "empty texts", "NaN labels", "ids", "decimal numbers", "whole numbers"],
)
def test_labels_and_texts_that_cannot_be_used(content: list[Row], told: tuple[str, ...], tmp_path: Path) -> None:
    refused(compare(write(tmp_path / "bad.csv", content), tmp_path / "out"), 1, *told)


def test_a_missing_column_is_told_with_those_there_are(data: Path, tmp_path: Path) -> None:
    done = compare(data, tmp_path / "out", "--target", "lable")
    refused(
        done, 1, "no target column 'lable'; did you mean 'label'?", "messages.csv", "the columns are 'text', 'label'"
    )
    refused(compare(data, tmp_path / "out", "--text", "body"), 1, "no text column 'body'", "'text', 'label'")
    refused(compare(data, tmp_path / "out", "--group", "sex"), 1, "no group column 'sex'")


def test_a_mistake_in_the_data_leaves_the_folder_free_for_the_next_try(data: Path, tmp_path: Path) -> None:
    assert compare(data, tmp_path / "out", "--target", "lable").exit_code == 1
    assert compare(data, tmp_path / "out", "--target", "label").exit_code == 0


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = write(tmp_path / "bad.csv", [(text, label, text) for text, label in rows(50)], ("text", "label", "text"))
    refused(compare(table, tmp_path / "out"), 1, "the same name for several columns: 'text'", "bad.csv:row 1")


def test_files_that_are_not_there_or_no_tables(tmp_path: Path) -> None:
    refused(compare(tmp_path / "no.csv", tmp_path / "out"), 1, "nothing at this path", "no.csv")
    (tmp_path / "empty.csv").touch()
    refused(compare(tmp_path / "empty.csv", tmp_path / "out"), 1, "the file is empty", "header line")
    (tmp_path / "folder").mkdir()
    refused(compare(tmp_path / "folder", tmp_path / "out", "--task", "classify"), 1, "found", ".parquet")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 20)
    refused(compare(tmp_path / "binary.csv", tmp_path / "out"), 1, "binary", "binary.csv")


def test_rows_that_cannot_be_used_are_counted_and_told(tmp_path: Path) -> None:
    """Ragged rows, empty texts, missing labels, a lonely class, a text of 100,000 characters and bytes of Latin-1."""
    good = rows(200)
    content: list[Row] = [*good, ("one field too many", "ham", "x"), ("too few",), ("", "ham"), ("no label", "")]
    content += [("alone", "rare"), ("café " * 20_000, "ham")]
    done = compare(write(tmp_path / "mixed.csv", content, encoding="latin-1"), tmp_path / "out")
    assert done.exit_code == 0, done.output
    found = Comparison.model_validate_json((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert found.data.rows == len(content)
    assert sum(found.data.rejected.values()) == 4
    assert sum(found.data.split[part] for part in ("train", "valid", "test")) == len(good) + 2
    assert "1 rows are left out: empty text." in done.stderr
    assert "'mixed.csv' is not UTF-8: it was read as cp12" in done.stderr
    assert "The class 'rare' has one example: it is trained on but never tested." in done.stderr


def test_test_items_that_are_in_training_stop_the_comparison(data: Path, tmp_path: Path) -> None:
    fresh = rows(60, seed=1)
    leaky = write(tmp_path / "leaky.csv", [*fresh, *rows(20)])
    refused(compare(data, tmp_path / "out", "--test", leaky), 1, "20 of 80 (25.0 %)", "--allow-leaks")
    everything = write(tmp_path / "all.csv", rows(60))
    done = compare(data, tmp_path / "out", "--test", everything, "--allow-leaks")
    refused(done, 1, "every test item is in training too", "all.csv", "leave out --test")


def test_a_label_that_training_never_saw_is_left_out_and_told(data: Path, tmp_path: Path) -> None:
    test = write(tmp_path / "test.csv", [*rows(60, seed=1), ("something else entirely", "other")])
    done = compare(data, tmp_path / "out", "--test", test)
    assert done.exit_code == 0, done.output
    assert "rows with labels that are not in training are left out: 'other' (1)" in done.stderr
    only_new = write(tmp_path / "new.csv", [(text, "other") for text, _ in rows(60, seed=1)])
    refused(
        compare(data, tmp_path / "again", "--test", only_new), 1, "no row has a label that is in training", "new.csv"
    )


# rung compare: wishes that cannot be met ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--rungs", "majority,liner"], ("no rung called 'liner'; did you mean 'linear'?", "majority, naive-bayes")),
        (["--rungs", "majority"], ("one rung cannot be compared", "at least two")),
        (["--reference", "gru"], ("the reference 'gru' is not among the rungs", "--reference")),
        (["--curves", "gru"], ("'gru' is not on this ladder",)),
        (["--metric", "accurcy"], ("no verdict can rest on 'accurcy'; did you mean 'accuracy'?", "macro_f1")),
        (["--minutes", "0"], ("minutes", "greater than 0")),
        (["--minutes", "nan"], ("minutes",)),
        (["--minutes", "inf"], ("minutes",)),
        (["--margin", "0"], ("margin", "greater than 0")),
        (["--margin", "-1"], ("margin", "greater than 0")),
        (["--seeds", "0"], ("seeds", "greater than or equal to 1")),
        (["--seed", "-1"], ("seed", "greater than or equal to 0")),
        (["--watts-per-core", "0"], ("watts_per_core", "greater than 0")),
        (["--valid", "DATA"], ("validation files need test files",)),
        (["--price", "1/2"], ("--price and --spend-at-most are for a model to prompt", "--llm")),
        (["--llm", "http://127.0.0.1:9/v1#x", "--price", "cheap"], ("price", "cheap")),
        (["--llm", "http://127.0.0.1:9/v1#x", "--spend-at-most", "1"], ("price",)),
        (["--llm", "no-such-folder"], ("no-such-folder",)),
    ],
)
def test_wishes_that_contradict_or_make_no_sense(
    data: Path, tmp_path: Path, options: list[str], told: tuple[str, ...]
) -> None:
    given = [str(data) if option == "DATA" else option for option in options]
    refused(compare(data, tmp_path / "out", *given), 2, *told)


def test_output_folders_that_cannot_be_used(data: Path, finished: tuple[Path, Result], tmp_path: Path) -> None:
    out, _ = finished
    refused(compare(data, out), 2, "the output folder is not empty", str(out), "--resume")
    refused(compare(data, data.parent), 2, "the output folder is not empty", "choose another --out")
    refused(compare(data, data), 2, "the output folder is a file", str(data))
    refused(compare(data, tmp_path / "new", "--resume"), 1, "no comparison to go on with", "leave out --resume")
    refused(compare(data, tmp_path / "new", "--plan", tmp_path), 1, "no plans of a comparison", str(tmp_path))
    refused(compare(data, out, "--resume", "--margin", 2), 2, "begun with another margin", "give the same options")
    other = write(tmp_path / "other.csv", rows(seed=5))
    refused(compare(other, out, "--resume"), 1, "the data is not the one", "another --out")


def test_an_error_is_an_object_too(data: Path, tmp_path: Path) -> None:
    done = compare(data, tmp_path / "out", "--target", "lable", "--json")
    assert done.exit_code == 1
    told = last_object(done)["error"]
    assert set(told) == {"type", "problem", "where", "hint"}
    assert (told["type"], told["where"]) == ("DataError", "messages.csv")
    assert last_object(compare(data, tmp_path / "out", "--metric", "x", "--json"))["error"]["type"] == "UsageError"


def test_too_little_time_is_told_for_each_rung(data: Path, tmp_path: Path) -> None:
    done = compare(data, tmp_path / "out", "--minutes", 0.001, rungs="majority,naive-bayes,linear")
    told = done.stderr
    assert "linear is left out: the linear rung needs about" in told
    assert "-" not in told.split("linear is left out: ")[1].splitlines()[0]  # no negative seconds
    assert done.exit_code in (0, 1)
    assert ("give more --minutes" in told) == (done.exit_code == 1)


# rung compare: interrupted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_what_is_finished_is_never_done_again(
    data: Path, finished: tuple[Path, Result], tmp_path: Path, end: signal.Signals
) -> None:
    """Stopped while the second rung is fitted, then resumed: old fits are untouched and the report is the same."""
    whole, _ = finished
    out = tmp_path / "out"
    options = ["--rungs", CHEAP, "--seeds", "1", "--threads", "1", "--plan", str(whole), "--minutes", "1"]
    command = [sys.executable, "-m", "rung", "compare", str(data), "--out", str(out), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "naive-bayes: " in line:
                process.send_signal(end)
                break
        told = process.stderr.read()
    assert process.returncode == (130 if end is signal.SIGINT else -signal.SIGKILL), told
    assert "Traceback" not in told
    if end is signal.SIGINT:
        assert f"--resume --out {out}" in told
    assert not (out / "report.json").exists()
    done_before = {path: path.stat().st_mtime_ns for path in (out / "fits").glob("*/*-seed-*.json")}
    assert out / "fits" / "majority" / "all-seed-0.json" in done_before
    resumed = run("compare", data, "--out", out, *options, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert {path: path.stat().st_mtime_ns for path in done_before} == done_before
    compare(data, tmp_path / "at once", "--plan", whole)
    assert without_measured(out / "report.json") == without_measured(tmp_path / "at once" / "report.json")


@pytest.mark.parametrize("limit", [1_000, 20_000])
def test_a_full_disk_is_told_and_nothing_is_lost(data: Path, tmp_path: Path, limit: int) -> None:
    """A limit on the size of files stands for the full disk: writing fails in the middle, wherever that is."""
    resource = pytest.importorskip("resource")
    out = tmp_path / "out"

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    options = ["--rungs", CHEAP, "--seeds", "1", "--threads", "1", "--minutes", "1"]
    command = [sys.executable, "-m", "rung", "compare", str(data), "--out", str(out), *options]
    done = subprocess.run(command, preexec_fn=small_files, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "a limit on disk space or file size is met" in done.stderr
    assert "--resume" in done.stderr
    again = ["--resume"] if (out / "comparison.json").exists() else []
    assert run("compare", data, "--out", out, *options, *again).exit_code == 0


# rung compare --llm ---------------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.delenv("RUNG_LLM_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving() as server:
        server.answer = knows
        yield server


def knows(body: dict[str, Any], _number: int = 0) -> Any:
    """Tells a message from its words, as a good model would."""
    question = prompt_of(body)[-200:]
    return completion("spam" if sum(question.count(word) for word in SPAM) > 3 else "ham")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path / "small.csv", rows(60))


def test_a_prompted_model_is_compared_and_paid_once(small: Path, tmp_path: Path, server: ScriptedServer) -> None:
    model = ["--llm", f"{server.url}#tiny", "--price", "1/2", "--spend-at-most", 1]
    done = compare(small, tmp_path / "out", *model)
    assert done.exit_code == 0, done.output
    found = Comparison.model_validate_json((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert found.verdict.reference == "prompted"
    assert found.verdict.about_pretrained
    assert found.result("prompted").metric("cost_per_1000").value
    asked = len(server.bodies)
    assert asked
    again = compare(small, tmp_path / "out", *model, "--resume")
    assert again.exit_code == 0, again.output
    assert len(server.bodies) == asked
    assert without_measured(tmp_path / "out" / "report.json")["verdict"] == found.verdict.model_dump(mode="json")


def test_answers_that_name_no_label_are_errors_that_are_shown(
    small: Path, tmp_path: Path, server: ScriptedServer
) -> None:
    server.answer = lambda _body, _number: completion("banana")
    done = compare(small, tmp_path / "out", "--llm", f"{server.url}#tiny")
    assert done.exit_code == 0, done.output
    found = Comparison.model_validate_json((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert found.result("prompted").metric("accuracy").value == 0
    assert any("name no label and count as wrong" in reason for reason in found.verdict.reasons)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda _body, _number: error(401, "bad key"), ("the endpoint refuses: HTTP 401: bad key", "RUNG_LLM_KEY")),
        (lambda _body, _number: error(404, "no such model"), ("there is no such endpoint or model", "#NAME")),
        (lambda _body, _number: error(429, "slow down", Retry_After="86400"), ("asks to wait", "--resume")),
    ],
    ids=["refused", "no model", "rate limit of a day"],
)
def test_an_endpoint_that_does_not_answer_ends_the_comparison_with_its_words(
    small: Path, tmp_path: Path, server: ScriptedServer, answer: Callable[..., Any], told: tuple[str, ...]
) -> None:
    server.answer = answer
    out = tmp_path / "out"
    refused(compare(small, out, "--llm", f"{server.url}#tiny"), 1, *told)
    server.answer = knows
    assert compare(small, out, "--llm", f"{server.url}#tiny", "--resume").exit_code == 0


def test_spending_stops_before_the_cap(small: Path, tmp_path: Path, server: ScriptedServer) -> None:
    done = compare(small, tmp_path / "out", "--llm", f"{server.url}#tiny", "--price", "1000/1000", "--spend-at-most", 1)
    assert done.exit_code == 0, done.output
    assert "prompted is left out" in done.stderr
    assert server.bodies == []


@pytest.mark.parametrize(
    "strange",
    [reply(200, b"<html>hello</html>"), reply(200, {"choices": []}), reply(200, {"choices": "three"})],
    ids=["no JSON", "no choices", "choices of another kind"],
)
def test_one_strange_reply_is_asked_again(small: Path, tmp_path: Path, server: ScriptedServer, strange: Any) -> None:
    server.answer = lambda body, number: strange if number == 1 else knows(body)
    done = compare(small, tmp_path / "out", "--llm", f"{server.url}#tiny")
    assert done.exit_code == 0, done.output


# rung predict ---------------------------------------------------------------------------------------------------------


def test_texts_are_labelled(rung_folder: Path) -> None:
    done = run("predict", rung_folder, "win a free prize now")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].split()[0] == "spam"
    two = last_object(run("predict", rung_folder, "win a free prize", "see you at home", "--json"))
    assert [one["label"] for one in two["predictions"]] == ["spam", "ham"]
    assert sum(two["predictions"][0]["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "text", ["", " ", "\x00", "☃" * 100_000, "\ud800"], ids=["empty", "blank", "NUL", "long", "lone"]
)
def test_strange_texts_are_labelled_or_refused_without_a_traceback(rung_folder: Path, text: str) -> None:
    assert run("predict", rung_folder, text).exit_code in (0, 1)


def test_a_table_keeps_its_rows_columns_and_order(rung_folder: Path, tmp_path: Path) -> None:
    content: list[Row] = [(number, text, label) for number, (text, label) in enumerate(rows(40, seed=2))]
    content[7] = (7, "", "ham")
    table = write(tmp_path / "new.csv", content, ("number", "text", "label"))
    done = run("predict", rung_folder, "--input", table, "--output", tmp_path / "labelled.csv", "--json")
    assert done.exit_code == 0, done.output
    told = last_object(done)
    assert (told["rows"], sum(told["not_labelled"].values())) == (40, 1)
    with (tmp_path / "labelled.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [row["number"] for row in found] == [str(number) for number in range(40)]
    assert found[7]["prediction"] == ""
    assert found[7]["error"]
    assert {row["prediction"] for row in found} == {"ham", "spam", ""}


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (["RUN"], (2, "there is nothing to label")),
        (["RUN", "text", "--input", "TABLE", "--output", "OUT"], (2, "TEXT and --input contradict each other")),
        (["RUN", "text", "--output", "OUT"], (2, "--output is for a table")),
        (["RUN", "--input", "TABLE"], (2, "give --output labelled.parquet")),
        (["RUN", "--input", "TABLE", "--output", "TABLE"], (1, "the output would replace the input")),
        (["RUN", "--input", "nowhere.csv", "--output", "OUT"], (1, "nothing at this path")),
        (["RUN", "--input", "TABLE", "--output", "FOLDER"], (1, "FOLDER")),
        (["RUN", "--input", "TABLE", "--output", "FOLDER/labelled.txt"], (1, ".parquet")),
        (["RUN", "--input", "TABLE", "--output", "OUT", "--text", "body"], (1, "no text column 'body'")),
        (["FOLDER", "text"], (1, "not a Rung run folder")),
        (["nowhere", "text"], (1, "no such folder")),
        (["OUTER", "text"], (1, "holds a whole comparison")),
    ],
)
def test_predictions_that_cannot_be_made(
    rung_folder: Path, data: Path, tmp_path: Path, arguments: list[str], refusal: tuple[int, str]
) -> None:
    code, told = refusal
    meant = {"RUN": rung_folder, "TABLE": data, "OUT": tmp_path / "out.csv", "OUTER": rung_folder.parents[1]}
    (tmp_path / "folder").mkdir()
    given = [meant.get(one, Path(one.replace("FOLDER", str(tmp_path / "folder")))) for one in arguments]
    refused(run("predict", *given), code, told.replace("FOLDER", "folder"))
    assert json.loads(run("predict", *given, "--json").stdout)["error"]["problem"]


def test_a_damaged_rung_is_never_used(rung_folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "rung"
    shutil.copytree(rung_folder, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(run("predict", copy, "text"), 1, "bytes", "model.safetensors")


# rung eval on a classifier --------------------------------------------------------------------------------------------


def test_a_classifier_is_measured_on_new_data(rung_folder: Path, tmp_path: Path) -> None:
    fresh = write(tmp_path / "fresh.csv", [*rows(80, seed=3), ("something else", "other")])
    done = run("eval", rung_folder, fresh)
    assert done.exit_code == 0, done.output
    assert "1 rows are left out: this classifier has never seen the label 'other'" in done.stdout
    found = last_object(run("eval", rung_folder, fresh, "--json"))
    accuracy = next(record for record in found["metrics"] if record["name"] == "accuracy")
    assert accuracy["value"] > 0.7
    assert accuracy["n"] == 80
    assert found["unseen_labels"] == {"other": 1}


def test_evaluations_that_cannot_be_made(rung_folder: Path, tmp_path: Path) -> None:
    refused(run("eval", rung_folder), 2, "no labelled data", "labelled.csv")
    refused(run("eval", rung_folder, tmp_path / "no.csv"), 1, "nothing at this path")
    unlabelled = write(tmp_path / "bare.csv", [(text,) for text, _ in rows(30)], ("text",))
    refused(run("eval", rung_folder, unlabelled), 1, "no target column 'label'", "the columns are 'text'")
    strange = write(tmp_path / "strange.csv", [(text, "other") for text, _ in rows(30)])
    refused(run("eval", rung_folder, strange), 1, "no row has a label that this classifier knows", "ham, spam")


# Start-up -------------------------------------------------------------------------------------------------------------


def test_predicting_with_a_counting_rung_imports_nothing_heavy(rung_folder: Path) -> None:
    code = (
        "import sys; from rung.cli.main import app\n"
        f"app(['predict', {str(rung_folder)!r}, 'win a prize'], standalone_mode=False)\n"
        "print(sorted({'torch', 'sklearn', 'scipy', 'polars', 'pandas', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "[]"
