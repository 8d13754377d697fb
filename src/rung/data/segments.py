"""A segment: some tens of megabytes of cleaned, cut and fingerprinted text in one cached folder.

A segment is named by the hash of what went into it (passages, options, `VERSION`), so equal input finds it again
whatever the files are called now. The folder is a Rung folder: complete or absent, and every file hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rung.data import clean
from rung.data.cache import note_use
from rung.data.documents import Passage, Rejection, excerpt
from rung.data.near_duplicates import fingerprints
from rung.data.pieces import cut_points, newlines
from rung.errors import RunFolderError
from rung.runfolder import verify, write_folder

VERSION = 1
"""Changes with anything that changes what a segment holds for equal input."""

_DOCUMENT = np.dtype(
    [
        ("end", np.int64),  # the text is text.bin[previous end : end]
        ("ordinal", np.int64),  # counts pieces as read; a document follows another directly iff it is one more
        ("row", np.int64),
        ("file", np.int32),
        ("num_words", np.int32),
        ("word_sequence", np.uint64),
        ("sha256", np.uint8, (32,)),
    ]
)


@dataclass(frozen=True)
class Segment:
    """A cached segment and the names its sources have in this corpus.

    `key`: SHA-256 of its content, hexadecimal. `names`, `row_units`: of the files that documents refer to by number.
    `rows_before`: how many rows of the first of them come before this segment; stored rows count from there, so that
    a line more at the start of a file changes no later segment. `first_ordinal`: added to the stored ordinals to
    count through the corpus.
    """

    key: str
    folder: Path
    names: tuple[str, ...]
    row_units: tuple[str, ...]
    header: dict[str, Any]
    rows_before: int = 0
    is_valid_text: bool = False
    first_ordinal: int = 0

    @cached_property
    def documents(self) -> npt.NDArray[np.void]:
        """One record a document, see `_DOCUMENT`; memory-mapped."""
        table: npt.NDArray[np.void] = np.load(self.folder / "documents.npy", mmap_mode="r", allow_pickle=False)
        return table

    @cached_property
    def signatures(self) -> npt.NDArray[np.uint16]:
        table: npt.NDArray[np.uint16] = np.load(self.folder / "signatures.npy", mmap_mode="r", allow_pickle=False)
        return table

    @cached_property
    def _inode(self) -> int:
        return (self.folder / "text.bin").stat().st_ino

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        return np.concatenate([np.zeros(1, np.int64), self.documents["end"]])

    @property
    def num_documents(self) -> int:
        return int(self.header["documents"])

    @property
    def num_bytes(self) -> int:
        return int(self.header["bytes"])

    @cached_property
    def document_nbytes(self) -> npt.NDArray[np.int64]:
        """(num_documents,) bytes of UTF-8 of each document."""
        return np.diff(self._ends)

    def text_bytes(self, index: int) -> memoryview:
        """The UTF-8 text of a document, without copying."""
        if self.num_bytes == 0:  # an empty file cannot be mapped
            return memoryview(b"")
        return _mapped(self.folder / "text.bin", self._inode)[self._ends[index] : self._ends[index + 1]]

    def sha256(self, index: int) -> str:
        return bytes(self.documents["sha256"][index]).hex()

    def rejections(self) -> Iterator[Rejection]:
        """What was rejected while the segment was made; `file` counts in `names`, rows as stored."""
        with (self.folder / "rejected.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                yield Rejection(**json.loads(line))

    def place(self, file: int, row: int) -> tuple[str, str]:
        """Name of the file and position in it (`line 120`) of a stored file number and row."""
        if row == 0:
            return self.names[file], "whole file"
        return self.names[file], f"{self.row_units[file]} {row + (self.rows_before if file == 0 else 0)}"

    def document_place(self, index: int) -> tuple[str, str]:
        """Name of the file and position in it of a document."""
        record = self.documents[index]
        return self.place(int(record["file"]), int(record["row"]))


@lru_cache(maxsize=8)
def _mapped(path: Path, inode: int) -> memoryview:  # noqa: ARG001 - a file made again is another file
    """A text file in memory. Few stay mapped: pages once touched count as this process's memory while they do."""
    return np.memmap(path, dtype=np.uint8, mode="r").data


@dataclass(frozen=True)
class Ingredients:
    """What a segment is made of."""

    items: Sequence[Passage | Rejection]
    row_units: Sequence[str]  # by file number
    piece_bytes: int
    only_unreadable: bool

    @property
    def first_file(self) -> int:
        return self.items[0].file

    @property
    def rows_before(self) -> int:
        return max(self.items[0].row - 1, 0)

    def relative(self, item: Passage | Rejection) -> tuple[int, int]:
        """File and row counted from the start of this segment (row 0 stays 0)."""
        same = item.file == self.first_file
        return item.file - self.first_file, max(item.row - self.rows_before, 0) if same else item.row

    def key(self) -> str:
        """Name the segment by what goes into it."""
        digest = hashlib.sha256(f"rung segment {VERSION} {self.piece_bytes} {self.only_unreadable}".encode())
        for item in self.items:
            if isinstance(item, Passage):
                unit = self.row_units[item.file]
                digest.update(f"\x00{self.relative(item)} {unit} {item.follows:d} {len(item.text)} ".encode())
                digest.update(item.text)
            else:
                rejection = (self.relative(item), item.reason, item.excerpt, item.num_bytes)
                digest.update(repr(rejection).encode("utf-8", "backslashreplace"))
        return digest.hexdigest()


def read_cached(folder: Path) -> dict[str, Any] | None:
    """Return the header of a cached folder, or None when it is absent, damaged or of another version."""
    if not folder.exists():
        return None
    try:
        header = verify(folder)
    except RunFolderError:
        return None  # a cache entry: made again from the text
    note_use(folder)
    return header


def build_segment(ingredients: Ingredients, folder: Path) -> None:
    """Clean, cut and fingerprint the passages of `ingredients` into `folder`."""
    pieces = _cut(ingredients)
    text = pieces.text
    prints = fingerprints(text, pieces.offsets)
    codes = clean.judge(
        np.frombuffer(text, np.uint8), pieces.offsets, prints, only_unreadable=ingredients.only_unreadable
    )
    kept = np.flatnonzero(codes == clean.KEPT)
    offsets = pieces.offsets.tolist()
    view = memoryview(text)
    rejections = []
    for item in ingredients.items:
        if isinstance(item, Rejection):
            file, row = ingredients.relative(item)
            rejections.append(replace(item, file=file, row=row))
    for index in np.flatnonzero(codes != clean.KEPT).tolist():
        piece = view[offsets[index] : offsets[index + 1]]
        file, row = int(pieces.file[index]), int(pieces.row[index])
        rejections.append(Rejection(file, row, clean.REASONS[codes[index]], excerpt(bytes(piece[:480])), len(piece)))
    rejections.sort(key=lambda rejection: (rejection.file, rejection.row))
    table = np.zeros(len(kept), _DOCUMENT)
    table["end"] = np.cumsum(np.diff(pieces.offsets)[kept])
    for name, column in (("ordinal", pieces.ordinal), ("row", pieces.row), ("file", pieces.file)):
        table[name] = column[kept]
    table["num_words"] = prints.num_words[kept]
    table["word_sequence"] = prints.word_sequence[kept]
    digests = b"".join(hashlib.sha256(view[offsets[i] : offsets[i + 1]]).digest() for i in kept.tolist())
    table["sha256"] = np.frombuffer(digests, np.uint8).reshape(-1, 32)

    def fill(target: Path) -> None:
        with (target / "text.bin").open("wb") as file:
            file.writelines(view[offsets[first] : offsets[last]] for first, last in _runs(kept))
        np.save(target / "documents.npy", table, allow_pickle=False)
        np.save(target / "signatures.npy", prints.signatures[kept], allow_pickle=False)
        with (target / "rejected.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(_fields(rejection)) + "\n" for rejection in rejections)

    header = {
        "kind": "text segment",
        "documents": len(kept),
        "bytes": int(table["end"][-1]) if len(kept) else 0,
        "rejected": len(rejections),
        "ordinals": int(pieces.ordinal[-1]) + 1 if len(pieces.ordinal) else 0,
        "opens_mid_source": next((item.follows for item in ingredients.items if isinstance(item, Passage)), False),
    }
    write_folder(folder, fill, header)


def _fields(rejection: Rejection) -> dict[str, Any]:
    return {name: getattr(rejection, name) for name in Rejection.__slots__}


def _runs(indices: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Consecutive stretches [first, last) of sorted indices."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    for run in np.split(indices, breaks):
        if len(run):
            yield int(run[0]), int(run[-1]) + 1


@dataclass(frozen=True)
class _Pieces:
    text: bytes
    offsets: npt.NDArray[np.int64]
    ordinal: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    file: npt.NDArray[np.int32]


def _cut(ingredients: Ingredients) -> _Pieces:
    """Cut long passages into pieces of about `piece_bytes`, half to one and a half times that."""
    minimum = ingredients.piece_bytes // 2
    maximum = minimum + ingredients.piece_bytes
    ends: list[int] = []
    ordinals: list[int] = []
    rows: list[int] = []
    files: list[int] = []
    texts: list[bytes] = []
    position, ordinal = 0, -2
    for item in ingredients.items:
        if isinstance(item, Rejection):
            continue
        file, row = ingredients.relative(item)
        texts.append(item.text)
        if not (item.follows and ordinal >= 0):
            ordinal += 1  # a gap: this does not continue what came before
        cuts = cut_points(item.text, minimum, maximum) or [0]
        ends += [position + end for end in cuts]
        ordinals += range(ordinal + 1, ordinal + 1 + len(cuts))
        files += [file] * len(cuts)
        if len(cuts) > 1 and ingredients.row_units[item.file] == "line":
            lines = newlines(np.frombuffer(item.text, np.uint8))
            rows += (row + np.searchsorted(lines, [0, *cuts[:-1]])).tolist()
        else:
            rows += [row] * len(cuts)
        ordinal += len(cuts)
        position += len(item.text)
    return _Pieces(
        b"".join(texts),
        np.array([0, *ends], np.int64),
        np.array(ordinals, np.int64),
        np.array(rows, np.int64),
        np.array(files, np.int32),
    )
