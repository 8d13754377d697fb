"""One reader for each kind of file: from bytes to passages, with a reason for whatever cannot be used."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

from rung.data.documents import Passage, Rejection, excerpt
from rung.data.html import html_to_text
from rung.data.pieces import cut_points
from rung.data.read import READ_ERRORS, EncodedReader, SourceFile, first_bad_byte, open_plain
from rung.data.rows import SAMPLE_ROWS, is_number, listed_names, parsed_csv_rows, parsed_json_lines, plain_path
from rung.errors import DataError

TEXT_COLUMNS = ("text", "content", "body")
_BLOCK_BYTES = 1 << 20  # a text file is handed on in blocks of one to two times this
_BUFFER_BYTES = 8 * _BLOCK_BYTES
_LARGEST_PAGE = 1 << 28  # bytes of HTML

Items = Iterator[Passage | Rejection]


@dataclass
class ReadingNotes:
    """What readers assumed: encodings by number of files, and (file number, sentence) worth telling the user."""

    encodings: Counter[str] = field(default_factory=Counter)
    remarks: list[tuple[int, str]] = field(default_factory=list)


def read_files(
    files: Sequence[SourceFile],
    text_column: str | None,
    notes: ReadingNotes,
    advance: Callable[[float], None] = lambda _amount: None,
) -> Items:
    """Yield the passages of `files` in order, streaming; no file is ever in memory as a whole, except HTML pages.

    A file that cannot be read, or only in part, yields a Rejection in place of what is missing.

    Raises DataError when it cannot be told which column of a table holds the text.
    """
    for number, file in enumerate(files):
        try:
            if file.kind == "parquet":
                yield from _read_parquet(file, number, text_column, notes)
                advance(file.num_bytes)
                continue
            with open_plain(file, advance) as stream:
                reader = EncodedReader(stream)
                if reader.binary:
                    yield Rejection(number, 0, "binary file", num_bytes=file.num_bytes)
                    continue
                yield from _read_encoded(file, number, reader, text_column, notes)
                notes.encodings[reader.encoding] += 1
        except PermissionError:
            yield Rejection(number, 0, "no permission to read", num_bytes=file.num_bytes)
        except READ_ERRORS as error:
            yield Rejection(number, 0, "cannot be read to its end", f"{type(error).__name__}: {error}", file.num_bytes)


def _read_encoded(
    file: SourceFile, number: int, reader: EncodedReader, text_column: str | None, notes: ReadingNotes
) -> Items:
    if file.kind == "text":
        return _read_text(reader, number)
    if file.kind == "html":
        return _read_html(reader, number)
    columns = _ColumnChoice(file.name, number, text_column, notes)
    if file.kind == "jsonl":
        return _read_jsonl(reader, number, columns)
    return _read_csv(reader, number, columns, tabs=file.kind == "tsv")


# Text -----------------------------------------------------------------------------------------------------------------


def _read_text(reader: EncodedReader, number: int) -> Items:
    row, follows = 1, False
    for block in _blocks(reader):
        text, valid = reader.to_utf8(block)
        text = _plain_newlines(text)
        if valid:
            yield Passage(text, number, row, follows)
            follows = True
        else:
            yield from _readable_lines(text, number, row)
            follows = False
        row += text.count(b"\n")


def _blocks(reader: EncodedReader) -> Iterator[bytes]:
    """Cut a stream into blocks of one to two `_BLOCK_BYTES` at content-defined borders."""
    buffer = b""
    while True:
        parts, size = [buffer], len(buffer)
        while size < _BUFFER_BYTES and (part := reader.read(1 << 20)):
            parts.append(part)
            size += len(part)
        buffer = b"".join(parts)
        finished = size < _BUFFER_BYTES
        start = 0
        for end in cut_points(buffer, _BLOCK_BYTES, 2 * _BLOCK_BYTES):
            if not finished and start + 3 * _BLOCK_BYTES > size:
                break  # this cut may depend on what is still to come
            yield buffer[start:end]
            start = end
        if finished:
            return
        buffer = buffer[start:]


def _readable_lines(text: bytes, number: int, row: int) -> Items:
    """Yield the stretches of whole lines that are UTF-8, and a rejection for each stretch that is not."""
    stretch: list[bytes] = []
    good, first = True, row
    for line in [*text.splitlines(keepends=True), None]:
        line_good = line is not None and first_bad_byte(line) < 0
        if stretch and (line is None or line_good != good):
            joined = b"".join(stretch)
            if good:
                yield Passage(joined, number, first)
            else:
                yield Rejection(number, first, "not valid UTF-8", excerpt(joined), len(joined))
            first += len(stretch)
            stretch = []
        good = line_good
        if line is not None:
            stretch.append(line)


def _plain_newlines(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text


# HTML -----------------------------------------------------------------------------------------------------------------


def _read_html(reader: EncodedReader, number: int) -> Items:
    parts: list[bytes] = []
    size = 0
    while part := reader.read(1 << 20):
        parts.append(part)
        size += len(part)
        if size > _LARGEST_PAGE:
            yield Rejection(number, 0, "HTML page larger than 256 MiB", num_bytes=size)
            return
    raw, valid = reader.to_utf8(b"".join(parts))
    if not valid:
        yield Rejection(number, 0, "not valid UTF-8", excerpt(raw), size)
        return
    text = html_to_text(raw.decode("utf-8"))
    if text:
        yield Passage(text.encode("utf-8"), number, 1)
    else:
        yield Rejection(number, 0, "no visible text", excerpt(raw), size)


# Tables ---------------------------------------------------------------------------------------------------------------


@dataclass
class _ColumnChoice:
    """Decides which column of a table holds the text."""

    where: str
    number: int
    wanted: str | None
    notes: ReadingNotes

    def choose(self, names: Sequence[str], holding_strings: Sequence[str]) -> str:
        if self.wanted is not None:
            if self.wanted in names:
                return self.wanted
            raise DataError(f"there is no column '{self.wanted}'; there is {listed_names(names)}", where=self.where)
        for name in TEXT_COLUMNS:
            if name in names:
                return name
        if len(holding_strings) == 1:
            self.remark(f"text is taken from '{holding_strings[0]}', its only text column")
            return holding_strings[0]
        raise DataError(
            f"it is not clear which column holds the text; there is {listed_names(names)}",
            where=self.where,
            hint="name it with text_column (in a file without header line: its number, from 1)",
        )

    def remark(self, sentence: str) -> None:
        self.notes.remarks.append((self.number, sentence))


def _text_or_rejection(value: Any, column: str, number: int, row: int) -> Passage | Rejection:
    if not isinstance(value, str):
        kind = "empty field" if value is None else f"'{column}' is not a text but {type(value).__name__}"
        return Rejection(number, row, kind, excerpt(repr(value)))
    try:
        text = value.encode("utf-8")
    except UnicodeEncodeError:
        reason = "lone surrogate or not valid UTF-8"
        return Rejection(number, row, reason, excerpt(value), len(value.encode("utf-8", "surrogatepass")))
    return Passage(_plain_newlines(text), number, row)


def _read_jsonl(reader: EncodedReader, number: int, columns: _ColumnChoice) -> Items:
    parsed = parsed_json_lines(reader, number)
    sample = list(islice(parsed, SAMPLE_ROWS))
    objects = [value for _, value in sample if isinstance(value, dict)]
    if not objects:
        yield from (value for _, value in sample if isinstance(value, Rejection))
        sample = []
        objects = [{}]
    names = list(dict.fromkeys(name for value in objects for name in value))
    strings = [name for name in names if all(isinstance(value.get(name, ""), str) for value in objects)]
    column: str | None = None
    for row, value in chain(sample, parsed):
        if isinstance(value, Rejection):
            yield value
            continue
        if column is None:
            column = columns.choose(names or list(value), strings or [n for n in value if isinstance(value[n], str)])
        if column in value:
            yield _text_or_rejection(value[column], column, number, row)
        else:
            yield Rejection(number, row, f"no field '{column}'", excerpt(json.dumps(value)))


def _read_csv(reader: EncodedReader, number: int, columns: _ColumnChoice, *, tabs: bool) -> Items:
    parsed = parsed_csv_rows(reader, number, columns.where, tabs=tabs)
    line, header = next(parsed, (0, []))
    if isinstance(header, Rejection):
        yield replace(header, row=0, reason=f"the header line cannot be read: {header.reason}")
        return
    if not header:  # an empty file
        return
    sample = list(islice(parsed, SAMPLE_ROWS))
    if columns.wanted is not None and columns.wanted not in header and columns.wanted.isdecimal():
        index, column = int(columns.wanted) - 1, columns.wanted
        if not 0 <= index < len(header):
            raise DataError(f"there is no column {column}; there are {len(header)}", where=columns.where)
        columns.remark(f"read as a table without header line, text in column {column}")
        sample.insert(0, (line, header))
    else:
        full = [row for _, row in sample if isinstance(row, list) and len(row) == len(header)]
        strings = [name for at, name in enumerate(header) if any(not is_number(row[at]) for row in full)]
        column = columns.choose(header, strings)
        index = header.index(column)
    for row, values in chain(sample, parsed):
        if isinstance(values, Rejection):
            yield values
        elif len(values) != len(header):
            reason = f"{'more' if len(values) > len(header) else 'fewer'} columns than the first line"
            yield Rejection(number, row, reason, excerpt(" | ".join(values)), sum(map(len, values)))
        else:
            yield _text_or_rejection(values[index], column, number, row)


def _read_parquet(file: SourceFile, number: int, text_column: str | None, notes: ReadingNotes) -> Items:
    import polars

    with plain_path(file) as path:
        try:
            frame = polars.scan_parquet(path)
            schema = frame.collect_schema()
            strings = [name for name, kind in schema.items() if kind == polars.String]
            column = _ColumnChoice(file.name, number, text_column, notes).choose(list(schema), strings)
            row = 0
            for batch in frame.select(polars.col(column)).collect_batches(chunk_size=1024, maintain_order=True):
                for value in batch.to_series():
                    row += 1
                    yield _text_or_rejection(value, column, number, row)
        except polars.exceptions.PolarsError as error:
            yield Rejection(number, 0, "damaged Parquet file", excerpt(str(error)), file.num_bytes)
