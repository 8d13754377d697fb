"""Rows of tables in text files, as parsed: CSV records and JSON objects, or what is wrong with them.

Shared by those who read text for pretraining (`formats`) and those who read every column (`tables`).
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from rung.data.documents import Rejection, excerpt
from rung.data.read import EncodedReader, SourceFile, open_plain
from rung.errors import DataError

SAMPLE_ROWS = 100  # rows looked at to tell how a table is written and which columns hold text
_LONGEST_FIELD = 1 << 28  # bytes


def parsed_csv_rows(
    reader: EncodedReader, number: int, name: str, *, tabs: bool
) -> Iterator[tuple[int, list[str] | Rejection]]:
    """Rows of the file `name`, numbered by the line they begin in. After a broken row the next line begins a new one.

    Raises DataError for a quote that is never closed: where the rest of the file belongs cannot be told.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    lines = decoded_lines(reader, "")
    head = list(islice(lines, SAMPLE_ROWS))
    rows = csv.reader(chain(head, lines), strict=True, **_csv_dialect(head, tabs=tabs))
    while True:
        line = rows.line_num + 1
        try:
            values = next(rows, None)
        except csv.Error as error:
            if "end of data" in str(error):
                raise DataError(
                    "a quote that opens in this row is never closed, so the rest of the file cannot be told apart",
                    where=f"{name}:row {line}",
                    hint='close the quote; a quote inside a quoted field is written twice: ""',
                ) from error
            yield line, Rejection(number, line, f"broken CSV row ({error})")
            continue
        if values is None:
            return
        if values:
            yield line, values


def _csv_dialect(head: list[str], *, tabs: bool) -> dict[str, Any]:
    """Tabs part columns, quotes are letters, if all lines then have equally many columns; else quotes are quotes."""
    if tabs:
        widths = {line.count("\t") for line in head if line.strip()}
        return {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if len(widths) == 1 else {"delimiter": "\t"}
    first = head[0] if head else ""
    return {"delimiter": max(",;\t|", key=first.count)}


def is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return not value.strip()
    return True


def parsed_json_lines(reader: EncodedReader, number: int) -> Iterator[tuple[int, dict[str, Any] | Rejection]]:
    for row, line in enumerate(decoded_lines(reader, "\n"), start=1):
        if line.isspace() or not line:
            continue
        size = len(line)
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield row, Rejection(number, row, "broken JSON", f"{error}: {excerpt(line)}", size)
            continue
        if isinstance(value, dict):
            yield row, value
        else:
            yield row, Rejection(number, row, "JSON line is not an object", excerpt(line), size)


def decoded_lines(reader: EncodedReader, newline: Literal["\n", ""]) -> Iterator[str]:
    """Lines with their ends, `newline` as for `open` (empty: a carriage return ends a line too).

    Bytes that are not UTF-8 come as surrogates, which no valid text holds.
    """
    rest: list[bytes] = []
    while block := reader.read(1 << 20):
        cut = block.rfind(b"\n") + 1
        if not cut:
            rest.append(block)
            continue
        whole, _ = reader.to_utf8(b"".join([*rest, block[:cut]]))
        rest = [block[cut:]]
        yield from io.StringIO(whole.decode("utf-8", "surrogateescape"), newline=newline)
    whole, _ = reader.to_utf8(b"".join(rest))
    yield from io.StringIO(whole.decode("utf-8", "surrogateescape"), newline=newline)


def listed_names(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{excerpt(name)}'" for name in names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "none"


@contextmanager
def plain_path(file: SourceFile) -> Iterator[Path]:
    """A path to the uncompressed file: itself, or a temporary copy (Parquet is not read front to back)."""
    if not file.compression:
        yield file.path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "table.parquet")
        with open_plain(file) as stream, copy.open("wb") as target:
            shutil.copyfileobj(stream, target, 1 << 20)
        yield copy
