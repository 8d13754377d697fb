"""What a text-to-text network is used for: a text for each row of a table, or each line of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rung.data.pairs import read_lines
from rung.errors import UsageError
from rung.progress import SILENT, Progress
from rung.tasks.rewriting.rewriter import Rewriter

if TYPE_CHECKING:
    from rung.data.table_stream import AnnotatedTable

WRITTEN = "prediction"
_LINES_AT_ONCE = 256
_ROWS_AT_ONCE = 1000


def rewrite_table(
    rewriter: Rewriter,
    table: Path,
    output: Path,
    *,
    text_columns: Sequence[str] | None = None,
    beams: int | None = None,
    progress: Progress = SILENT,
) -> AnnotatedTable:
    """Copy a table with the columns `prediction` and `error` added; order, rows and columns stay.

    A row without text, or with one longer than the network reads, keeps its place with the reason in `error`. The text
    is in the column that was the source in training, unless others are named.

    Raises UsageError when no text column is known, DataError for tables that cannot be read or written.
    """
    from rung.data.table_stream import ERROR_COLUMN, annotate_table

    named = rewriter.header.get("recipe", {}).get("pairs", {}).get("source")
    columns = list(text_columns or ([named] if named else []))
    if not columns:
        raise UsageError("which column holds the text is not known", hint="name it with --text COL")

    def annotate(texts: list[str]) -> Mapping[str, Sequence[Any]]:
        lengths = rewriter.encode(texts).lengths
        fits = np.flatnonzero(lengths <= rewriter.context_length).tolist()
        written = dict(zip(fits, rewriter.rewrite([texts[i] for i in fits], beams=beams), strict=True))
        reason = f"longer than {rewriter.context_length:,} tokens"
        every = range(len(texts))
        return {
            WRITTEN: [written.get(i) for i in every],
            ERROR_COLUMN: ["" if i in written else reason for i in every],
        }

    return annotate_table(
        table,
        output,
        text_columns=columns,
        new_columns={WRITTEN: str},
        annotate=annotate,
        chunk_rows=_ROWS_AT_ONCE,
        progress=progress,
    )


def rewrite_lines(
    rewriter: Rewriter, file: Path, *, beams: int | None = None, progress: Progress = SILENT
) -> Iterator[str]:
    """What is written for each line of a text file, in order; an empty line stays empty.

    Raises DataError for a file that cannot be read, GenerationError for a line longer than the network reads.
    """
    lines = [line or "" for line in read_lines(file, progress)]
    with progress.task("writing", len(lines), "lines") as advance:
        for start in range(0, len(lines), _LINES_AT_ONCE):
            some = lines[start : start + _LINES_AT_ONCE]
            full = [place for place, line in enumerate(some) if line.strip()]
            written = dict(zip(full, rewriter.rewrite([some[i].strip() for i in full], beams=beams), strict=True))
            yield from (written.get(place, "") for place in range(len(some)))
            advance(len(some))
