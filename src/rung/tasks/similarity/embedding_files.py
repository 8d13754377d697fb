"""Texts from files for `rung embed`, and their vectors into files that other programs read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rung.data.labelled_reading import joined_text
from rung.data.pairs import read_lines
from rung.data.read import COMPRESSIONS, KINDS
from rung.data.table_stream import table_chunks
from rung.data.tables import TABLE_KINDS
from rung.errors import DataError, UsageError
from rung.progress import SILENT, Progress
from rung.runfolder import readable_write_errors
from rung.tasks.similarity.encoder import Floats

_ROWS_AT_ONCE = 10_000


def read_texts(file: Path, columns: Sequence[str] = (), *, progress: Progress = SILENT) -> list[str]:
    """The lines of a text file, or the texts in `columns` of a table, so that vector n belongs to line or row n.

    Raises UsageError when a table is given without its columns, DataError for a file that cannot be read, or whose line
    or row holds no text: left out, it would move all the vectors after it.
    """
    if is_table(file):
        if not columns:
            raise UsageError("which column holds the text is not known", hint="name it with --text COL")
        found: list[tuple[int, str]] = []
        for chunk in table_chunks(file, columns, _ROWS_AT_ONCE):
            for number, problem in zip(chunk.numbers, chunk.problems, strict=True):
                if problem:
                    raise DataError(f"a row cannot be used: {problem}", where=f"{file}:row {number}")
            texts = (joined_text(cells) for cells in chunk.frame.select(columns).iter_rows())
            found += zip(chunk.numbers, texts, strict=True)
    else:
        if columns:
            raise UsageError("--text names a column of a table", where=str(file), hint="leave it out for lines of text")
        found = list(enumerate(((line or "") for line in read_lines(file, progress)), start=1))
    for number, text in found:
        if not text.strip():
            raise DataError("there is no text here", where=f"{file}, line {number}", hint="remove it, or fill it in")
    return [text for _, text in found]


def is_table(file: Path) -> bool:
    """Whether a file's name ends like that of a table."""
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() not in COMPRESSIONS]
    return KINDS.get(suffixes[-1] if suffixes else "") in TABLE_KINDS


def check_output(path: Path) -> None:
    """Raise UsageError unless `write_embeddings` knows the kind of file that `path` names."""
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(
            f"vectors are not written as '{path.suffix or path.name}'",
            where=str(path),
            hint=f"name the file with one of {' '.join(_WRITERS)}",
        )


def write_embeddings(path: Path, texts: Sequence[str], vectors: Floats) -> None:
    """Write `vectors` (texts, dimension): `.npy` holds them alone, `.jsonl` and `.parquet` the texts beside them.

    The file appears complete or not at all. Raises UsageError for other kinds, RunFolderError when the disk is full or
    not writable.
    """
    check_output(path)
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    with readable_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _WRITERS[path.suffix.lower()](temporary, texts, vectors)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _write_npy(path: Path, _texts: Sequence[str], vectors: Floats) -> None:
    with path.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)


def _write_jsonl(path: Path, texts: Sequence[str], vectors: Floats) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for text, vector in zip(texts, vectors, strict=True):
            file.write(json.dumps({"text": text, "vector": vector.tolist()}, ensure_ascii=False) + "\n")


def _write_parquet(path: Path, texts: Sequence[str], vectors: Floats) -> None:
    import polars

    polars.DataFrame({"text": list(texts), "vector": vectors}).write_parquet(path)


_WRITERS: Mapping[str, Callable[[Path, Sequence[str], Floats], None]] = {
    ".npy": _write_npy,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
