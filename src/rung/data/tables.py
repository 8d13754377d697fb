"""Rows of CSV, TSV, JSON Lines and Parquet files, in order, none lost: a row that is broken says what is wrong with it.

The row parsers are those that read text for pretraining. A table parser that works on whole columns is faster, but it
fills short rows with nulls without a word, cannot name the row that stopped it, and knows UTF-8 only; Parquet, which
has none of these troubles, is read by polars.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from rung.data.documents import Rejection, excerpt
from rung.data.read import READ_ERRORS, EncodedReader, SourceFile, find_files, open_plain
from rung.data.rows import listed_names, parsed_csv_rows, parsed_json_lines, plain_path
from rung.errors import DataError, did_you_mean

TABLE_KINDS = ("csv", "tsv", "jsonl", "parquet")
_KNOWN = "tables are .csv .tsv .jsonl .ndjson .parquet, each also with .gz .zst .xz"
_PARQUET_ROWS = 10_000

Advance = Callable[[float], None]


class TableRow(NamedTuple):
    """One row. `number` is the line it begins in (CSV, TSV, JSON Lines; the header is line 1), or the row (Parquet).

    `values` has one value a column, None where there is none. `problem` is empty, or says why the row cannot be used;
    `values` then holds what could be told apart and `remains` what could not.
    """

    number: int
    values: Sequence[Any]
    problem: str = ""
    remains: str = ""


@dataclass(frozen=True)
class OpenTable:
    """A table being read: its column names, and its rows once, in order. `kinds`: types of the values of each column.

    Missing values are of no kind. Parquet has types of its own: `kinds` is empty.
    """

    file: SourceFile
    columns: list[str]
    rows: Iterator[TableRow]
    kinds: dict[str, set[type]] = field(default_factory=dict)
    reader: EncodedReader | None = None

    @property
    def encoding(self) -> str:
        """What the bytes read so far were taken for."""
        return "utf-8" if self.reader is None else self.reader.encoding


def find_tables(paths: Sequence[Path]) -> list[SourceFile]:
    """The tables among `paths` (files or folders), sorted by shown name.

    Raises DataError when a path is missing, a file that was named is no table, or a folder holds none.
    """
    found = [file for file in find_files(paths).files if file.kind in TABLE_KINDS or file.path in paths]
    for file in found:
        if file.kind not in TABLE_KINDS:
            raise DataError(f"this is a file of kind {file.kind}, not a table", where=str(file.path), hint=_KNOWN)
    if not found:
        raise DataError("no tables found", where=", ".join(map(str, paths)), hint=_KNOWN)
    return found


@contextmanager
def open_table(
    file: SourceFile, *, wanted: Sequence[str] = (), advance: Advance = lambda _amount: None
) -> Iterator[OpenTable]:
    """Open a table for one pass over its rows; memory does not grow with the file.

    `wanted` are columns the caller will ask for: if all of them are numbers and none is a name in the header of a CSV
    or TSV file, the file has no header and its columns are called "1", "2", ...

    Raises DataError, also while rows are read, for a file that cannot be read to its end, is binary, has no rows at
    all, has two columns of one name, or has a quote that is never closed.
    """
    try:
        if file.kind == "parquet":
            with _open_parquet(file, advance) as table:
                yield table
            return
        kinds = _json_kinds(file) if file.kind == "jsonl" else {}
        with open_plain(file, advance) as stream:
            reader = EncodedReader(stream)
            if reader.binary:
                raise DataError("this is a binary file, not a table of text", where=file.name, hint=_KNOWN)
            if file.kind == "jsonl":
                rows = _json_rows(file, reader, list(kinds))
            else:
                names, rows = _csv_rows(file, reader, wanted)
                kinds = {name: {str} for name in names}
            yield OpenTable(file, list(kinds), rows, kinds, reader)
    except READ_ERRORS as error:
        raise DataError(
            f"the file cannot be read to its end: {error or type(error).__name__}",
            where=file.name,
            hint="it may be damaged or cut off; make or download it anew",
        ) from error


def require_column(name: str, columns: Sequence[str], where: str, purpose: str) -> None:
    """Raise a DataError that lists the columns there are unless `name` is among them."""
    if name in columns:
        return
    raise DataError(
        f"there is no {purpose} column '{name}'{did_you_mean(name, columns)}",
        where=where,
        hint=f"the columns are {listed_names(columns)}; in a file without header line, name columns by number, from 1",
    )


# CSV and TSV ----------------------------------------------------------------------------------------------------------


def _csv_rows(file: SourceFile, reader: EncodedReader, wanted: Sequence[str]) -> tuple[list[str], Iterator[TableRow]]:
    parsed = parsed_csv_rows(reader, 0, file.name, tabs=file.kind == "tsv")
    line, header = next(parsed, (0, None))
    if header is None:
        raise DataError("the file is empty", where=file.name, hint="give a table with a header line and rows")
    if isinstance(header, Rejection):
        raise DataError(f"the header line cannot be read: {header.reason}", where=f"{file.name}:row {line}")
    if wanted and all(name.isdecimal() and name not in header for name in wanted):
        parsed = chain([(line, header)], parsed)
        columns = [str(place) for place in range(1, len(header) + 1)]
    else:
        columns = header
        _require_distinct(columns, file.name)
    return columns, _checked_csv(file, columns, parsed)


def _require_distinct(columns: Sequence[str], where: str) -> None:
    repeated = [f"'{excerpt(name)}' ({count} times)" for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise DataError(
            f"the header has the same name for several columns: {', '.join(repeated)}",
            where=f"{where}:row 1",
            hint="give each column a name of its own",
        )
    for name in columns:
        if not _is_unicode(name):
            raise DataError(f"the column name '{excerpt(name)}' is not valid text", where=f"{where}:row 1")


def _checked_csv(
    file: SourceFile, columns: list[str], parsed: Iterator[tuple[int, list[str] | Rejection]]
) -> Iterator[TableRow]:
    width = len(columns)
    unreadable = _UnreadableBytes(file)
    for number, values in parsed:
        if isinstance(values, Rejection):
            yield TableRow(number, [None] * width, values.reason, values.excerpt)
        elif len(values) != width:
            problem = f"{'more' if len(values) > width else 'fewer'} fields than the header"
            kept = [*values[:width], *[None] * (width - len(values))]
            yield TableRow(number, kept, f"{problem} ({len(values)}, not {width})", _as_json(values[width:]))
        elif (joined := "".join(values)).isascii() or _is_unicode(joined):
            yield TableRow(number, values)
        else:
            yield unreadable.row(number, values)


class _UnreadableBytes:
    """Rows with bytes that are not text in the encoding of the file; the position is looked up once, when needed."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._problem = ""

    def row(self, number: int, values: Sequence[Any]) -> TableRow:
        if not self._problem:
            position = first_bad_position(self._file)
            self._problem = f"not valid UTF-8 (the first such byte of the file is at position {position:,})"
            if position < 0:
                self._problem = "lone surrogates, which are not text"
        kept = [value if not isinstance(value, str) or _is_unicode(value) else None for value in values]
        lost = [value for value, left in zip(values, kept, strict=True) if value is not left]
        return TableRow(number, kept, self._problem, _as_json(lost))


def first_bad_position(file: SourceFile) -> int:
    """Place of the first byte, counted from 0 after decompression, that is not UTF-8; -1 if there is none."""
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with open_plain(file) as stream:
        while True:
            block = stream.read(1 << 20)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                return done - pending + error.start
            if not block:
                return -1
            done += len(block)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _as_json(values: Sequence[Any]) -> str:
    return json.dumps(list(values)) if values else ""


# JSON Lines -----------------------------------------------------------------------------------------------------------


def _json_kinds(file: SourceFile) -> dict[str, set[type]]:
    """All names of the file's objects, in the order of their first row: a pass of its own, as any row may add one."""
    kinds: dict[str, set[type]] = {}
    with open_plain(file) as stream:
        reader = EncodedReader(stream)
        if not reader.binary:
            for _, value in parsed_json_lines(reader, 0):
                if isinstance(value, dict):
                    for name, cell in value.items():
                        kinds.setdefault(name, set()).add(_kind(cell))
    for found in kinds.values():
        found.discard(type(None))
    return kinds


def _kind(cell: Any) -> type:
    """The type of a JSON value; `object` for an integer beyond 64 bits, which no column type holds."""
    return object if isinstance(cell, int) and not -(2**63) <= cell < 2**63 else type(cell)


def _json_rows(file: SourceFile, reader: EncodedReader, names: list[str]) -> Iterator[TableRow]:
    unreadable = _UnreadableBytes(file)
    for number, value in parsed_json_lines(reader, 0):
        if isinstance(value, Rejection):
            yield TableRow(number, [None] * len(names), value.reason, value.excerpt)
            continue
        values = [value.get(name) for name in names]
        joined = "".join(value for value in values if isinstance(value, str))
        if joined.isascii() or _is_unicode(joined):
            yield TableRow(number, values)
        else:
            yield unreadable.row(number, values)


# Parquet --------------------------------------------------------------------------------------------------------------


@contextmanager
def _open_parquet(file: SourceFile, advance: Advance) -> Iterator[OpenTable]:
    with parquet_frames(file, _PARQUET_ROWS) as (columns, frames):

        def rows() -> Iterator[TableRow]:
            number = 0
            for frame in frames:
                for values in frame.iter_rows():
                    number += 1
                    yield TableRow(number, values)
            advance(file.num_bytes)

        yield OpenTable(file, columns, rows())


@contextmanager
def parquet_frames(file: SourceFile, rows: int) -> Iterator[tuple[list[str], Iterator[Any]]]:
    """Column names, and the file as polars frames of at most `rows` rows, in order.

    Raises DataError for a damaged file, also while frames are read.
    """
    import polars

    with plain_path(file) as path:
        try:
            lazy = polars.scan_parquet(path)
            columns = lazy.collect_schema().names()
            batches = lazy.collect_batches(chunk_size=rows, maintain_order=True)
            parts = (part for batch in batches for part in batch.iter_slices(rows))
            yield (
                columns,
                chain([first] if (first := next(parts, None)) is not None else [lazy.head(0).collect()], parts),
            )
        except polars.exceptions.PolarsError as error:
            raise DataError(
                f"damaged Parquet file: {excerpt(str(error))}", where=file.name, hint="make or download it anew"
            ) from error
