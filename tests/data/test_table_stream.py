"""Annotated tables: row for row and column for column what went in, plus the new columns, in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.labelled_reading import RejectedRow
from rung.data.table_stream import AnnotatedTable, annotate_table
from rung.data.tables import find_tables, open_table
from rung.errors import DataError

NEW = {"prediction": str, "probability": float}
KINDS = ["csv", "tsv", "jsonl", "parquet"]


def shout(texts: list[str]) -> Mapping[str, Sequence[object]]:
    return {"prediction": [text.upper() for text in texts], "probability": [len(text) / 7 for text in texts]}


def annotate(source: Path, output: Path, **options: int) -> AnnotatedTable:
    return annotate_table(source, output, text_columns=["text"], new_columns=NEW, annotate=shout, **options)


def read_back(path: Path) -> list[list[object]]:
    (file,) = find_tables([path])
    with open_table(file) as table:
        return [table.columns, *(list(row.values) for row in table.rows)]


def write(frame: polars.DataFrame, path: Path) -> Path:
    match path.suffix:
        case ".csv":
            frame.write_csv(path)
        case ".tsv":
            frame.write_csv(path, separator="\t", quote_style="never")
        case ".jsonl":
            frame.write_ndjson(path)
        case _:
            frame.write_parquet(path)
    return path


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("output", KINDS)
def test_any_kind_into_any_kind(tmp_path: Path, source: str, output: str) -> None:
    frame = polars.DataFrame(
        {"id": ["x1", "x2", "x3"], "text": ["one", 'says "two"', "drei – ü"], "last": ["a", "b", "c"]}
    )
    path = write(frame, tmp_path / f"in.{source}")
    done = annotate(path, tmp_path / f"out.{output}", chunk_rows=2)
    header, *rows = read_back(tmp_path / f"out.{output}")
    assert header == ["id", "text", "last", "prediction", "probability", "error"]
    assert [row[:3] for row in rows] == [list(row) for row in frame.iter_rows()]
    assert [row[3] for row in rows] == [text.upper() for text in frame["text"]]
    assert [float(str(row[4])) for row in rows] == [len(text) / 7 for text in frame["text"]]
    assert not any(row[5] for row in rows)
    assert (done.rows, done.bad_rows) == (3, [])
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([f"in.{source}", f"out.{output}"])


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(',"\n'), max_size=12)),
    chunk=st.integers(1, 7),
    output=st.sampled_from(["csv", "jsonl", "parquet"]),
)
def test_order_and_row_count_are_kept(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], chunk: int, output: str
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    frame = polars.DataFrame({"text": texts, "n": range(len(texts))}, schema={"text": polars.String, "n": polars.Int64})
    frame.write_parquet(folder / "in.parquet")
    done = annotate(folder / "in.parquet", folder / f"out.{output}", chunk_rows=chunk)
    _, *rows = read_back(folder / f"out.{output}")
    assert [(row[0] or "", int(str(row[1]))) for row in rows] == list(zip(texts, range(len(texts)), strict=True))
    assert [bool(row[-1]) for row in rows] == [not text.strip() for text in texts]
    assert done.rows == len(texts)


def test_bad_rows_keep_their_place_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('id,text\n1,one\n2\n3,three,and,more\n4,""\n5,five\n')
    done = annotate(path, tmp_path / "out.parquet")
    frame = polars.read_parquet(tmp_path / "out.parquet")
    assert frame["id"].to_list() == ["1", "2", "3", "4", "5"]
    assert frame["prediction"].to_list() == ["ONE", None, None, None, "FIVE"]
    assert frame["error"].to_list() == [
        None,
        "fewer fields than the header (1, not 2)",
        'more fields than the header (4, not 2): ["and", "more"]',
        "empty text",
        None,
    ]
    assert done.bad_rows[0] == RejectedRow("in.csv", 3, "fewer fields than the header (1, not 2)")
    assert done.problems.total() == 3


def test_json_values_come_back_as_they_were(tmp_path: Path) -> None:
    lines = [
        {"text": "a", "n": 1, "mixed": 1, "list": [1, {"b": None}], "big": 2**70},
        {"text": "b", "n": 2.5, "mixed": "x", "late": True},
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{broken\n")
    annotate(path, tmp_path / "out.jsonl", chunk_rows=1)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for line, before in zip(found, lines, strict=False):
        assert {name: line[name] for name in before} == before
        assert all(value is None for name, value in line.items() if name not in {*before, *NEW})
    assert found[2]["prediction"] is None
    assert found[2]["error"].startswith("broken JSON")


def test_types_of_parquet_columns_stay(tmp_path: Path) -> None:
    frame = polars.DataFrame(
        {
            "text": ["a", None],
            "day": polars.Series(["2025-01-01", None]).str.to_date(),
            "tags": [["x"], []],
            "kind": polars.Series(["p", "q"], dtype=polars.Categorical),
        }
    )
    frame.write_parquet(tmp_path / "in.parquet")
    annotate(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert polars.read_parquet(tmp_path / "out.parquet").select(frame.columns).equals(frame)
    annotate(tmp_path / "in.parquet", tmp_path / "out.csv")
    assert '"[""x""]"' in (tmp_path / "out.csv").read_text()


@pytest.mark.parametrize("output", KINDS)
def test_a_table_without_rows_gives_one_without_rows(tmp_path: Path, output: str) -> None:
    (tmp_path / "in.csv").write_text("id,text\n")
    assert annotate(tmp_path / "in.csv", tmp_path / f"out.{output}").rows == 0
    if output != "jsonl":
        assert read_back(tmp_path / f"out.{output}") == [["id", "text", "prediction", "probability", "error"]]


@pytest.mark.parametrize(
    ("content", "output", "problem"),
    [
        ("id,body\n1,x\n", "out.csv", "no text column 'text'"),
        ("text,error\n1,x\n", "out.csv", "has a column 'error' already"),
        ("text\nx\n", "out.xlsx", "not written as '.xlsx'"),
        ("text\nx\n", "in.csv", "would replace the input"),
        ('text\nx\n"y', "out.csv", "never closed"),
        ('text,b\n"x\ty",c\n', "out.tsv", "tabs or line breaks"),
    ],
)
def test_what_cannot_be_done_leaves_everything_as_it_was(
    tmp_path: Path, content: str, output: str, problem: str
) -> None:
    (tmp_path / "in.csv").write_text(content)
    (tmp_path / "out.csv").write_text("from before")
    with pytest.raises(DataError, match=problem):
        annotate(tmp_path / "in.csv", tmp_path / output)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.csv", "out.csv"]
    assert (tmp_path / "in.csv").read_text() == content
    assert (tmp_path / "out.csv").read_text() == "from before"


def test_a_failing_model_leaves_no_output(tmp_path: Path) -> None:
    def fail(texts: list[str]) -> Mapping[str, Sequence[object]]:
        raise RuntimeError(texts[0])

    (tmp_path / "in.csv").write_text("text\nx\n")
    for kind in KINDS:
        with pytest.raises(RuntimeError, match="x"):
            annotate_table(
                tmp_path / "in.csv", tmp_path / f"o.{kind}", text_columns=["text"], new_columns=NEW, annotate=fail
            )
    assert [file.name for file in tmp_path.iterdir()] == ["in.csv"]


MEASURE = """
import sys
from pathlib import Path
from rung.comparison.peak_memory import peak_memory
from rung.data.table_stream import annotate_table
source, output = map(Path, sys.argv[1:])
new = {"prediction": str, "probability": float}
done = annotate_table(source, output, text_columns=["text"], new_columns=new,
                      annotate=lambda texts: {"prediction": ["x"] * len(texts), "probability": [0.5] * len(texts)})
print(done.rows, peak_memory() // 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("output", KINDS)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, output: str) -> None:
    """300,000 rows, 130 MB: ten times the rows, well under a tenth of the file more memory."""
    peaks = []
    for rows in (30_000, 300_000):
        source = tmp_path / f"{rows}.csv"
        with source.open("w") as file:
            file.write("id,text\n")
            file.writelines(f"{row},{'some words to fill the row ' * 15}{row}\n" for row in range(rows))
        result = subprocess.run(
            [sys.executable, "-c", MEASURE, source, tmp_path / f"out.{output}"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        done, peak = map(int, result.stdout.split())
        assert done == rows
        peaks.append(peak)
    assert source.stat().st_size > 120e6
    assert peaks[1] < peaks[0] + 60, f"peak memory in MiB for 30,000 and 300,000 rows: {peaks}"
