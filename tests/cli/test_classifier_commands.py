"""`rung predict` and `rung eval` on a rung of a finished comparison."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from classifier_commands import Row, last_object, refused, rows, run, write

pytestmark = pytest.mark.usefixtures("quick")


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
        (["nowhere", "text"], (1, "there is no model 'nowhere'")),
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
