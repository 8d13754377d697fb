"""New columns for a table of any size: every row and column kept, in order, a chunk at a time.

A row that cannot be read or has no text stays in its place, with nulls in the new columns and the reason in `error`.
The output appears in one step when it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rung.data.labelled_reading import RejectedRow, joined_text
from rung.data.read import SourceFile
from rung.data.tables import OpenTable, TableRow, find_tables, open_table, parquet_frames, require_column
from rung.errors import DataError
from rung.progress import SILENT, Progress

if TYPE_CHECKING:
    import polars

CHUNK_ROWS = 10_000
ERROR_COLUMN = "error"
OUTPUT_KINDS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_MOST_EXAMPLES = 20
_ROW_GROUP = 30_000  # polars' own choice takes twice the memory for texts of 400 characters

Annotate = Callable[[list[str]], Mapping[str, Sequence[Any]]]


@dataclass(frozen=True)
class TableChunk:
    """Consecutive rows. frame: all columns of the input. numbers: (rows,) the line each begins in; Parquet: its number.

    problems: (rows,) empty for a row that can be used. remains: (rows,) of a bad row, what fits into no column.
    encoded: columns whose values are JSON text, since they were lists or objects, or of several types.
    """

    frame: polars.DataFrame
    numbers: list[int]
    problems: list[str]
    remains: list[str]
    encoded: frozenset[str] = frozenset()


@dataclass
class AnnotatedTable:
    """What `annotate_table` did. `bad_rows` are the first few; `problems` counts all of them by reason."""

    rows: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    bad_rows: list[RejectedRow] = field(default_factory=list)


def annotate_table(
    source: Path,
    output: Path,
    *,
    text_columns: Sequence[str],
    new_columns: Mapping[str, type[str] | type[float] | type[int]],
    annotate: Annotate,
    chunk_rows: int = CHUNK_ROWS,
    progress: Progress = SILENT,
) -> AnnotatedTable:
    """Copy `source` to `output` (.csv .tsv .jsonl .parquet) with `new_columns` and `error` added to every row.

    `annotate` is given the texts of up to `chunk_rows` good rows and returns as many values for each of `new_columns`,
    and for `error` where it could not do all of them.

    Raises DataError: a text column is missing, a new one is there already, `output` is `source` or of an unknown kind,
    the source cannot be read to its end. Then no output is left behind, and a file that stood there stays.
    """
    if output.exists() and source.exists() and output.samefile(source):
        raise DataError("the output would replace the input", where=str(output), hint="give the output another name")
    account = AnnotatedTable()
    annotator = _Annotator(source.name, text_columns, new_columns, annotate, account)
    with progress.task("rows", None, "rows") as advance, _table_writer(output) as write:
        for chunk in table_chunks(source, text_columns, chunk_rows):
            write(annotator.annotated(chunk))
            advance(len(chunk.problems))
    return account


@dataclass(frozen=True)
class _Annotator:
    """Adds the new columns to chunks, and keeps account of the rows that could not be used."""

    name: str
    text_columns: Sequence[str]
    new_columns: Mapping[str, type]
    annotate: Annotate
    account: AnnotatedTable

    def annotated(self, chunk: TableChunk) -> TableChunk:
        import polars

        taken = [name for name in (*self.new_columns, ERROR_COLUMN) if name in chunk.frame.columns]
        if taken:
            raise DataError(
                f"the table has a column '{taken[0]}' already", where=self.name, hint="rename or drop that column"
            )
        texts = [joined_text(cells) for cells in chunk.frame.select(self.text_columns).iter_rows()]
        problems = [
            problem or ("" if text else "empty text") for problem, text in zip(chunk.problems, texts, strict=True)
        ]
        good = [at for at, problem in enumerate(problems) if not problem]
        values = self.annotate([texts[at] for at in good]) if good else {}
        for at, problem in zip(good, values.get(ERROR_COLUMN, [""] * len(good)), strict=True):
            problems[at] = problem
        self._count(problems, chunk.numbers)
        columns = []
        for column, kind in self.new_columns.items():
            full: list[Any] = [None] * len(texts)
            for at, value in zip(good, values.get(column, ()), strict=True):
                full[at] = value
            columns.append(polars.Series(column, full, _dtypes()[kind]))
        errors = [
            f"{problem}: {left}" if left else problem for problem, left in zip(problems, chunk.remains, strict=True)
        ]
        columns.append(polars.Series(ERROR_COLUMN, [error or None for error in errors], polars.String))
        return replace(chunk, frame=chunk.frame.hstack(columns))

    def _count(self, problems: list[str], numbers: list[int]) -> None:
        self.account.rows += len(problems)
        for number, problem in zip(numbers, problems, strict=True):
            if problem:
                self.account.problems[problem] += 1
                if len(self.account.bad_rows) < _MOST_EXAMPLES:
                    self.account.bad_rows.append(RejectedRow(self.name, number, problem))


def _dtypes() -> dict[type, Any]:
    import polars

    return {str: polars.String, float: polars.Float64, int: polars.Int64, bool: polars.Boolean}


# Reading --------------------------------------------------------------------------------------------------------------


def table_chunks(source: Path, text_columns: Sequence[str], rows: int = CHUNK_ROWS) -> Iterator[TableChunk]:
    """All rows of one table in order, `rows` at a time (a table without rows: one empty chunk). Raises DataError."""
    (file,) = find_tables([source])
    chunks = _parquet_chunks if file.kind == "parquet" else _chunks
    return chunks(file, text_columns, rows)


def _parquet_chunks(file: SourceFile, text_columns: Sequence[str], rows: int) -> Iterator[TableChunk]:
    with parquet_frames(file, rows) as (columns, frames):
        for name in text_columns:
            require_column(name, columns, file.name, "text")
        number = 1
        for frame in frames:
            nothing = [""] * len(frame)
            yield TableChunk(frame, list(range(number, number + len(frame))), nothing, nothing)
            number += len(frame)


def _chunks(file: SourceFile, text_columns: Sequence[str], rows: int) -> Iterator[TableChunk]:
    with open_table(file, wanted=text_columns) as table:
        for name in text_columns:
            require_column(name, table.columns, file.name, "text")
        types = {name: _column_type(table, name) for name in table.columns}
        encoded = frozenset(name for name, kind in types.items() if kind is None)
        part = list(islice(table.rows, rows))
        yield _chunk(part, types, encoded)
        while part := list(islice(table.rows, rows)):
            yield _chunk(part, types, encoded)


def _column_type(table: OpenTable, name: str) -> type | None:
    """The one type that holds all values of a column; None where only JSON text does."""
    kinds = table.kinds[name]
    if kinds <= {int, float} and float in kinds:
        return float
    return next(iter(kinds), str) if len(kinds) < 2 and kinds <= {str, int, bool} else None


def _chunk(rows: list[TableRow], types: Mapping[str, type | None], encoded: frozenset[str]) -> TableChunk:
    import polars

    columns = []
    for at, (name, kind) in enumerate(types.items()):
        values = [row.values[at] for row in rows]
        if kind is None:
            values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
        columns.append(polars.Series(name, values, _dtypes()[kind or str]))
    numbers, problems, remains = ([getattr(row, name) for row in rows] for name in ("number", "problem", "remains"))
    return TableChunk(polars.DataFrame(columns), numbers, problems, remains, encoded)


# Writing --------------------------------------------------------------------------------------------------------------


@contextmanager
def _table_writer(output: Path) -> Iterator[Callable[[TableChunk], None]]:
    """Hand out a function that appends a chunk; `output` appears when the block ends without an error."""
    kind = OUTPUT_KINDS.get(output.suffix.lower())
    if kind is None:
        raise DataError(
            f"tables are not written as '{output.suffix or output.name}'",
            where=str(output),
            hint=f"name the output with one of {' '.join(OUTPUT_KINDS)}",
        )
    temporary = output.with_name(f".writing-{os.getpid()}-{output.name}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with (_parquet_writer if kind == "parquet" else _text_writer)(temporary, kind) as write:
            yield write
        temporary.replace(output)
    except OSError as error:
        raise DataError(f"the output cannot be written: {error}", where=str(output)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _text_writer(path: Path, kind: str) -> Iterator[Callable[[TableChunk], None]]:
    with path.open("wb") as file:

        def write(chunk: TableChunk) -> None:
            if kind == "jsonl":
                _write_jsonl(file, chunk)
            else:
                _write_csv(file, chunk.frame, tabs=kind == "tsv", header=file.tell() == 0)

        yield write
        file.flush()
        os.fsync(file.fileno())


def _write_csv(file: BinaryIO, frame: polars.DataFrame, *, tabs: bool, header: bool) -> None:
    """Null is an empty field, an empty text a quoted one. In TSV, quotes are letters like any other."""
    import polars

    nested = (polars.List, polars.Array, polars.Struct)
    for name, dtype in frame.schema.items():
        if isinstance(dtype, nested):
            text = [json.dumps(value, ensure_ascii=False, default=str) for value in frame[name].to_list()]
            frame = frame.with_columns(polars.Series(name, text))
        elif isinstance(dtype, polars.Binary):
            raise DataError(f"column '{name}' holds bytes, which a text file cannot", hint="write .parquet")
    if not tabs:
        frame.write_csv(file, include_header=header)
        return
    for name in (name for name, dtype in frame.schema.items() if isinstance(dtype, polars.String)):
        if frame[name].str.contains("[\t\r\n]").any():
            raise DataError(
                f"column '{name}' holds texts with tabs or line breaks, which a .tsv cannot",
                hint="write .csv, .jsonl or .parquet",
            )
    frame.write_csv(file, include_header=header, separator="\t", quote_style="never")


def _write_jsonl(file: BinaryIO, chunk: TableChunk) -> None:
    if not chunk.encoded:
        chunk.frame.write_ndjson(file)
        return
    for row in chunk.frame.iter_rows(named=True):
        values = {k: json.loads(v) if k in chunk.encoded and v is not None else v for k, v in row.items()}
        file.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")


@contextmanager
def _parquet_writer(path: Path, kind: str) -> Iterator[Callable[[TableChunk], None]]:
    """Chunks become files of their own first, since a Parquet file cannot be appended to; then one, streaming."""
    import polars

    folder = path.with_name(path.name + ".parts")
    try:
        folder.mkdir()
        parts: list[Path] = []

        def write(chunk: TableChunk) -> None:
            parts.append(folder / f"{len(parts):08d}.{kind}")
            chunk.frame.write_parquet(parts[-1])

        yield write
        polars.scan_parquet(parts).sink_parquet(path, maintain_order=True, row_group_size=_ROW_GROUP)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
