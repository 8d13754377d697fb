"""Tables: every row comes out, as it went in or with the reason why not."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import polars
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from rung.data.tables import TableRow, find_tables, open_table
from rung.errors import DataError

ROWS = [("a", "first text"), ("b", 'says "hi", twice'), ("a", "two\nlines"), ("c", "ünïcödé 漢字 🙂")]


def rows_of(path: Path, *wanted: str) -> tuple[list[str], list[TableRow]]:
    (file,) = find_tables([path])
    with open_table(file, wanted=wanted) as table:
        return table.columns, list(table.rows)


def frame() -> polars.DataFrame:
    return polars.DataFrame(ROWS, schema=["label", "text"], orient="row")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "ndjson", "parquet"])
@pytest.mark.parametrize("compression", ["", ".gz", ".zst", ".xz"])
def test_all_kinds_and_compressions_read_alike(tmp_path: Path, kind: str, compression: str) -> None:
    plain = tmp_path / f"table.{kind}"
    match kind:
        case "csv":
            frame().write_csv(plain)
        case "tsv":
            frame().write_csv(plain, separator="\t")
        case "parquet":
            frame().write_parquet(plain)
        case _:
            frame().write_ndjson(plain)
    raw = plain.read_bytes()
    packers = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.ZstdCompressor().compress}
    path = tmp_path / f"table.{kind}{compression}"
    path.write_bytes(packers[compression](raw) if compression else raw)
    columns, rows = rows_of(path)
    assert columns == ["label", "text"]
    assert [tuple(row.values) for row in rows] == ROWS
    assert not any(row.problem for row in rows)


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('\t\n\r",;|'), max_size=20)


@given(cells=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=20))
def test_any_text_survives_csv_written_by_polars(tmp_path_factory: pytest.TempPathFactory, cells: list) -> None:
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    polars.DataFrame(cells, schema=dict.fromkeys("xyz", polars.String), orient="row").write_csv(
        path, quote_style="always"
    )
    columns, rows = rows_of(path)
    assert columns == ["x", "y", "z"]
    assert [tuple(row.values) for row in rows] == cells


def test_ragged_rows_keep_their_place_and_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "ragged.csv"
    path.write_text("label,text\na,one\nb\nc,three,too,many\n\nd,four\n")
    _, rows = rows_of(path)
    assert [(row.number, row.problem) for row in rows] == [
        (2, ""),
        (3, "fewer fields than the header (1, not 2)"),
        (4, "more fields than the header (4, not 2)"),
        (6, ""),
    ]
    assert rows[1].values == ["b", None]
    assert rows[2].values == ["c", "three"]
    assert json.loads(rows[2].remains) == ["too", "many"]


def test_rows_are_numbered_by_the_line_they_begin_in(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_text('label,text\na,"one\ntwo"\nb,three\n')
    assert [row.number for row in rows_of(path)[1]] == [2, 4]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text("text,label,text\na,b,c\n")
    with pytest.raises(DataError, match=r"same name for several columns: 'text' \(2 times\)"):
        rows_of(path)


def test_a_quote_that_never_closes_is_refused_where_it_opens(tmp_path: Path) -> None:
    path = tmp_path / "quote.csv"
    path.write_text('label,text\na,one\nb,"two\nc,three\n')
    with pytest.raises(DataError, match="never closed") as caught:
        rows_of(path)
    assert caught.value.where == "quote.csv:row 3"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
def test_other_encodings_are_detected(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "old.csv"
    lines = ["label,text"] + [f"ä,Größe über Maß – schöne Grüße aus Köln {number}" for number in range(50)]
    path.write_bytes("\n".join(lines).encode(encoding))
    _, rows = rows_of(path)
    assert [tuple(row.values) for row in rows] == [tuple(line.split(",")) for line in lines[1:]]


def test_damaged_utf8_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "damaged.csv"
    good = "a,schöne Grüße aus Köln\n".encode() * 20
    path.write_bytes(b"label,text\n" + good + b"b,broken \xff here\n" + good)
    _, rows = rows_of(path)
    (bad,) = [row for row in rows if row.problem]
    position = len(b"label,text\n") + len(good) + len("b,broken ")
    assert bad.number == 22
    assert f"position {position}" in bad.problem
    assert bad.values == ["b", None]
    assert len(rows) == 41


def test_json_lines_of_other_shapes_keep_their_place(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{broken\n[1, 2]\n{"late": true}\n')
    columns, rows = rows_of(path)
    assert columns == ["text", "label", "late"]
    assert [row.problem for row in rows] == ["", "broken JSON", "JSON line is not an object", ""]
    assert rows[3].values == [None, None, True]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("empty.csv", b"", "the file is empty"),
        ("binary.csv", bytes(range(256)) * 20, "binary file"),
        ("cut.csv.gz", gzip.compress(b"label,text\n" + b"a,b\n" * 1000, mtime=0)[:-20], "cannot be read to its end"),
        ("damaged.parquet", b"PAR1 nothing that makes sense PAR1", "damaged Parquet file"),
        ("notes.txt", b"text", "not a table"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=problem):
        rows_of(path)


def test_a_folder_gives_its_tables_and_needs_one(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("about")
    with pytest.raises(DataError, match="no tables found"):
        find_tables([tmp_path])
    for name in ("b.csv", "a.jsonl"):
        (tmp_path / name).write_text("x")
    assert [file.name for file in find_tables([tmp_path])] == ["a.jsonl", "b.csv"]


def test_columns_by_number_mean_that_there_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "bare.tsv"
    path.write_text("ham\tGo until jurong\nspam\tFree entry\n")
    assert rows_of(path)[0] == ["ham", "Go until jurong"]
    columns, rows = rows_of(path, "1", "2")
    assert columns == ["1", "2"]
    assert [row.values[0] for row in rows] == ["ham", "spam"]
