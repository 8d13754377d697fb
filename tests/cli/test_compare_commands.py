"""`rung compare` on labelled data as a user meets it: results, refusals, interruptions.

Everything runs for real on a small table and rungs that fit in milliseconds, except that no figures are drawn and costs
are not measured again in a process of their own for every test. What is pinned of a refusal is its exit code, the
problem, the place or the way out, and that `--json` ends standard output with one object all the same.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from classifier_commands import CHEAP, Row, compare, last_object, refused, rows, run, without_measured, write
from typer.testing import Result

from rung.comparison.result import Comparison

pytestmark = pytest.mark.usefixtures("quick")


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
    ],
)
def test_wishes_that_contradict_or_make_no_sense(
    data: Path, tmp_path: Path, options: list[str], told: tuple[str, ...]
) -> None:
    given = [str(data) if option == "DATA" else option for option in options]
    refused(compare(data, tmp_path / "out", *given), 2, *told)


def test_a_model_to_prompt_that_is_not_there_is_told_as_any_other_model(data: Path, tmp_path: Path) -> None:
    for option in ("--llm", "--base"):
        told = compare(data, tmp_path / "out", option, "no-such-folder")
        refused(told, 1, "there is no model 'no-such-folder'", "no folder and no file is called so")


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
