"""Files of word vectors that other programs write and read: word2vec's text and binary format, and GloVe's text.

- word2vec text: a line `words dimensions`, then a line for each word, its numbers after it.
- word2vec binary: the same first line, then for each word its bytes, a space, and little-endian float32 numbers;
  the original program ends each record with a newline, others do not.
- GloVe text: as word2vec text, without the first line.

Files may be compressed (.gz, .xz). What a first line claims is checked against the file and never allocated for.
"""

from __future__ import annotations

import gzip
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from rung.errors import DataError
from rung.runfolder import readable_write_errors

Floats = NDArray[np.float32]
FileFormat = Literal["word2vec", "word2vec-binary", "glove"]
FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)

_READ_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error)
_LONGEST_LINE = 1 << 22
_LONGEST_WORD = 1 << 12
_MOST_DIMENSIONS = 1 << 16
"""No published vectors come near; a record of more is not read, let alone allocated."""
_COMPRESSED: dict[str, Callable[..., object]] = {".gz": gzip.open, ".xz": lzma.open}
_ROWS_AT_ONCE = 1 << 13
_HEADER = re.compile(rb"\s*(\d+)[ \t]+(\d+)\s*")
_NUMBERS = re.compile(rb"[0-9eE+\-. \tnaifNAIF]*")


class VectorTable(NamedTuple):
    """Words in the order of the file, their vectors (words, d) float32, and the format the file had."""

    words: list[str]
    vectors: Floats
    file_format: FileFormat


def read_vectors(path: Path) -> VectorTable:
    """Read a file of word vectors; which of the three formats it has, its first bytes tell.

    Raises DataError, with the line or record, when the file is missing, empty, cut short or damaged, when rows differ
    in length or are not what the first line says, and for values that are not finite and words that come twice.
    """
    try:
        with _opened(path, "rb") as file:
            first = _line(file, path, 1)
            header = _HEADER.fullmatch(first)
            if header is None:
                rows = _text_rows(file, path, first=first)
                return VectorTable(*_collected(rows, path, unit="line", offset=1), "glove")
            claim = _Claim(int(header[1]), int(header[2]), path)
            if _is_text(_peek(file), claim):
                lines = _text_rows(file, path, claim=claim)
                table = VectorTable(*_collected(lines, path, unit="line", offset=2), "word2vec")
            else:
                records = _binary_rows(file, claim)
                table = VectorTable(*_collected(records, path, unit="record", offset=1), "word2vec-binary")
    except _READ_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(f"the file of word vectors cannot be read: {reason}", where=str(path)) from error
    if len(table.words) < claim.rows:
        raise DataError(
            f"the first line says {claim.rows:,} words, and the file ends after {len(table.words):,}",
            where=str(path),
            hint="the file was cut short: copy it again, or correct its first line",
        )
    return table


def write_vectors(path: Path, words: Sequence[str], vectors: Floats, *, file_format: FileFormat) -> None:
    """Write `vectors` (words, d) so that other programs read them; .gz and .xz are compressed.

    Text has nine digits, so that the same float32 come back. The file appears complete or not at all. Raises DataError
    for a word that these formats cannot hold (with white space, or empty), RunFolderError when the disk is full.
    """
    encoded = [_encoded(word, path) for word in words]
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    with readable_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _opened(temporary, "wb") as file:
                if file_format != "glove":
                    file.write(b"%d %d\n" % vectors.shape)
                if file_format == "word2vec-binary":
                    for word, row in zip(encoded, vectors.astype("<f4"), strict=True):
                        file.write(word + b" " + row.tobytes() + b"\n")
                else:
                    line = b"%s" + b" %.9g" * vectors.shape[1] + b"\n"
                    for word, row in zip(encoded, vectors, strict=True):
                        file.write(line % (word, *row.tolist()))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class _Claim:
    """What the first line of a file says, held against what a file of its size can hold."""

    def __init__(self, rows: int, dimensions: int, path: Path) -> None:
        self.rows, self.dimensions, self.path = rows, dimensions, path
        if rows < 1 or not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise DataError(
                f"the first line says {rows:,} words of {dimensions:,} dimensions",
                where=f"{path}, line 1",
                hint=f"there must be a word at least, and 1 to {_MOST_DIMENSIONS:,} dimensions",
            )
        least = rows * 2 * dimensions  # a digit and a space for each number; in binary it is even four bytes
        size = path.stat().st_size
        if path.suffix not in _COMPRESSED and least > size:
            raise DataError(
                f"the first line says {rows:,} words of {dimensions:,} dimensions, which is {least:,} bytes at least; "
                f"the file has {size:,}",
                where=f"{path}, line 1",
                hint="the file was cut short or is no file of word vectors: copy it again",
            )


def _text_rows(
    file: BinaryIO, path: Path, *, first: bytes | None = None, claim: _Claim | None = None
) -> Iterator[tuple[bytes, Floats]]:
    """Words and vectors of the lines to come, `first` before them. A word may hold spaces: the last fields count."""
    dimensions = claim.dimensions if claim else None
    number = 1 if first is not None else 2
    line = first if first is not None else _line(file, path, number)
    while line:
        fields = line.split()
        if dimensions is None:
            dimensions = len(fields) - 1
        extra = len(fields) - 1 - dimensions
        if dimensions < 1 or extra < 0 or any(_is_number(field) for field in fields[1 : 1 + extra]):
            wanted = f"a word and {dimensions:,} numbers" if dimensions > 0 else "a word and its numbers"
            raise DataError(
                f"a line of {len(fields):,} fields where {wanted} were expected",
                where=f"{path}, line {number:,}",
                hint="every line must have the same number of dimensions: correct or remove this one",
            )
        if claim is not None and number - 1 > claim.rows:
            raise DataError(
                f"the first line says {claim.rows:,} words, and there are more",
                where=f"{path}, line {number:,}",
                hint="correct the first line; a file without one (GloVe) begins with a word",
            )
        try:
            row = np.array(fields[1 + extra :], dtype=np.float32)
        except ValueError as error:
            raise DataError(str(error), where=f"{path}, line {number:,}") from error
        yield b" ".join(fields[: 1 + extra]), row
        number += 1
        line = _line(file, path, number)


def _binary_rows(file: BinaryIO, claim: _Claim) -> Iterator[tuple[bytes, Floats]]:
    """Words and vectors of as many records as the file says, or as there are."""
    buffered = _Records(file)
    for number in range(1, claim.rows + 1):
        word = buffered.word()
        numbers = buffered.take(4 * claim.dimensions)
        if word is None or len(numbers) < 4 * claim.dimensions:
            if word:
                raise DataError(
                    f"the file ends within record {number:,} of {claim.rows:,}",
                    where=f"{claim.path}, record {number:,}",
                    hint="the file was cut short, or a word in it holds a space: neither can be read on from here",
                )
            return
        yield word, np.frombuffer(numbers, dtype="<f4")
    if buffered.rest().strip():
        raise DataError(
            f"more bytes follow the {claim.rows:,} records that the first line announces",
            where=str(claim.path),
            hint="a word in it holds a space, which this format cannot express, or the first line is wrong",
        )


class _Records:
    """Takes words and numbers off a binary stream, whose end may come anywhere."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._buffer, self._at = file, b"", 0

    def word(self) -> bytes | None:
        """The bytes up to the next space; None when there is none within a word's length."""
        self._fill(_LONGEST_WORD)
        end = self._buffer.find(b" ", self._at, self._at + _LONGEST_WORD)
        if end < 0:
            return None
        found = self._buffer[self._at : end].lstrip(b"\n")
        self._at = end + 1
        return found

    def take(self, size: int) -> bytes:
        self._fill(size)
        found = self._buffer[self._at : self._at + size]
        self._at += len(found)
        return found

    def rest(self) -> bytes:
        """What is left, at most a word's length of it."""
        self._fill(_LONGEST_WORD)
        return self._buffer[self._at : self._at + _LONGEST_WORD]

    def _fill(self, size: int) -> None:
        while len(self._buffer) - self._at < size and (more := self._file.read(1 << 20)):
            self._buffer = self._buffer[self._at :] + more
            self._at = 0


def _collected(rows: Iterator[tuple[bytes, Floats]], path: Path, *, unit: str, offset: int) -> tuple[list[str], Floats]:
    """All words and vectors, each checked; `offset` is the number of the first row's `unit`."""
    words: dict[str, int] = {}
    blocks: list[Floats] = []
    pending: list[Floats] = []
    for number, (encoded, row) in enumerate(rows, offset):
        where = f"{path}, {unit} {number:,}"
        try:
            word = encoded.decode("utf-8")
        except UnicodeDecodeError as error:
            hint = "re-code the file as UTF-8; in a binary file, a word before this one may hold a space"
            raise DataError(f"the word {encoded[:40]!r} is not UTF-8", where=where, hint=hint) from error
        if not word:
            raise DataError("a vector without a word", where=where)
        if not np.isfinite(row).all():
            hint = "remove the word from the file; in a binary file, a word before this one may hold a space"
            raise DataError(f"the vector of '{word}' holds values that are not finite", where=where, hint=hint)
        if (earlier := words.setdefault(word, number)) != number:
            raise DataError(f"the word '{word}' comes twice, first in {unit} {earlier:,}", where=where)
        pending.append(row)
        if len(pending) == _ROWS_AT_ONCE:
            blocks.append(np.stack(pending))
            pending.clear()
    if pending:
        blocks.append(np.stack(pending))
    if not blocks:
        raise DataError("there are no word vectors in this file", where=str(path))
    return list(words), np.concatenate(blocks)


def _encoded(word: str, path: Path) -> bytes:
    try:
        encoded = word.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"the word {word!r} cannot be written as UTF-8", where=str(path)) from error
    if encoded.split() != [encoded]:
        raise DataError(
            f"the word {word!r} is empty or holds white space, and files of word vectors separate fields by it",
            where=str(path),
            hint="keep the run folder, which can hold any word",
        )
    return encoded


@contextmanager
def _opened(path: Path, mode: Literal["rb", "wb"]) -> Iterator[BinaryIO]:
    """`path` as a buffered stream of plain bytes."""
    opener: Callable[..., object] = _COMPRESSED.get(path.suffix, open)
    with cast(BinaryIO, opener(path, mode)) as file:
        yield file


def _line(file: BinaryIO, path: Path, number: int) -> bytes:
    line = file.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE:
        raise DataError(
            f"a line of more than {_LONGEST_LINE:,} bytes: this is no file of word vectors",
            where=f"{path}, line {number:,}",
        )
    return line


def _peek(file: BinaryIO) -> bytes:
    """The next bytes, which stay to be read. All three kinds of streams can be peeked into."""
    return cast("gzip.GzipFile", file).peek(_LONGEST_WORD)


def _is_text(head: bytes, claim: _Claim) -> bool:
    """Whether what follows the first line spells numbers: four bytes of a float32 hardly ever do, and all never."""
    line = head.split(b"\n", 1)[0]
    numbers = line.partition(b" ")[2][: 2 * claim.dimensions]
    return numbers != b"" and _NUMBERS.fullmatch(numbers) is not None  # a float32 may begin with the byte of a newline


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
