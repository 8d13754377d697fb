"""Finding text files, and opening them: compression and character encoding end here.

Everything behind this module sees UTF-8 bytes. What was assumed to get there is counted and reported.
"""

from __future__ import annotations

import codecs
import gzip
import lzma
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from rung.errors import DataError
from rung.runfolder import HEADER_NAME

KINDS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".html": "html",
    ".htm": "html",
}
COMPRESSIONS = (".gz", ".zst", ".xz")
ROW_UNITS = {"text": "line", "html": "line", "jsonl": "row", "csv": "row", "tsv": "row", "parquet": "row"}
_KNOWN = f"known kinds: {' '.join(KINDS)}, each also with {' '.join(COMPRESSIONS)}"
_HEAD_BYTES = 1 << 16
_BOMS = (  # longest first: the UTF-32 mark begins with the UTF-16 one
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
READ_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error)


@dataclass(frozen=True)
class SourceFile:
    """A file to read. `name` is how it is shown: relative to the folder that was asked for."""

    path: Path
    name: str
    kind: str
    compression: str
    num_bytes: int
    modified_ns: int
    inode: int

    @property
    def row_unit(self) -> str:
        return ROW_UNITS[self.kind]


@dataclass
class FoundFiles:
    """The files to read, in sorted order, and how many were left out, by reason."""

    files: list[SourceFile] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def find_files(paths: Sequence[Path], *, leave_out: Iterable[Path] = (), never_enter: Path | None = None) -> FoundFiles:
    """Collect the text files of `paths` (files, or folders with all their subfolders), sorted by shown name.

    Hidden files, files of an unknown kind and folders that Rung made are left out and counted; a file that is asked
    for by name must be of a known kind. Files in `leave_out` are left out too; `never_enter` is the cache folder.

    Raises DataError when a path is missing or of an unknown kind, or nothing is left to read.
    """
    found = FoundFiles()
    excluded = {path.resolve() for path in leave_out}
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise DataError("there is nothing at this path", where=str(path), hint="check the spelling")
        for candidate, name in _candidates(path, found.skipped, never_enter):
            suffixes = [suffix.lower() for suffix in candidate.suffixes[-2:]]
            compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
            kind = KINDS.get(suffixes[-1]) if suffixes else None
            resolved = candidate.resolve()
            if kind is None:
                if candidate == path:
                    raise DataError(
                        "this kind of file is not known",
                        where=str(path),
                        hint=f"rename plain text to .txt; {_KNOWN}",
                    )
                found.skipped[f"unknown kind of file ({suffixes[-1] if suffixes else 'no suffix'})"] += 1
            elif resolved in excluded:
                found.skipped["given as validation text"] += 1
            elif resolved in seen:
                found.skipped["given twice"] += 1
            else:
                seen.add(resolved)
                status = candidate.stat()
                found.files.append(
                    SourceFile(candidate, name, kind, compression, status.st_size, status.st_mtime_ns, status.st_ino)
                )
    if not found.files:
        left_out = "; ".join(f"{count} left out: {reason}" for reason, count in found.skipped.items())
        raise DataError(
            f"no text files found{f' ({left_out})' if left_out else ''}",
            where=", ".join(str(path) for path in paths),
            hint=_KNOWN,
        )
    found.files.sort(key=lambda file: (file.name, str(file.path)))
    return found


def _candidates(path: Path, skipped: Counter[str], never_enter: Path | None) -> Iterator[tuple[Path, str]]:
    if path.is_file():
        yield path, path.name
        return
    if not path.is_dir():
        raise DataError("this is neither a file nor a folder", where=str(path), hint="give text files or folders")

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == path:
            raise DataError(
                "no permission to read this folder", where=str(path), hint="change its permissions"
            ) from error
        skipped["folder without read permission"] += 1

    for folder, subfolders, names in os.walk(path, onerror=unreadable):
        skipped.update({"hidden": sum(name.startswith(".") for name in [*subfolders, *names])})
        if HEADER_NAME in names:  # metrics.jsonl and README.md of a run are no text to train on
            skipped["folder made by Rung"] += 1
            subfolders.clear()
            continue
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith(".") and (never_enter is None or not _same(Path(folder, name), never_enter))
        )
        for name in sorted(names):
            candidate = Path(folder, name)
            if name.startswith("."):
                continue
            if not candidate.is_file():
                skipped["not a regular file"] += 1
                continue
            yield candidate, candidate.relative_to(path).as_posix()
    skipped += Counter()  # drops zero counts


def _same(left: Path, right: Path) -> bool:
    return right.exists() and left.samefile(right)


class _Counted:
    """Hands on `read`, and tells how much was read from disk."""

    def __init__(self, file: BinaryIO, advance: Callable[[float], None]) -> None:
        self._file = file
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._advance(len(data))
        return data


class _ZstdReader:
    """Decompresses all frames of a .zst file; zstandard's own stream reader takes a cut file for a finished one."""

    _FEED = 1 << 13  # small, since a block of four bytes can stand for 128 KiB

    def __init__(self, raw: BinaryIO) -> None:
        import zstandard

        self._raw = raw
        self._frames = zstandard.ZstdDecompressor()
        self._frame = self._frames.decompressobj()
        self._error = zstandard.ZstdError
        self._inside = False
        self._ready = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._ready) < size:
            packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._inside = self._frames.decompressobj(), False
            packed = packed or self._raw.read(self._FEED)
            if not packed:
                if self._inside:
                    raise EOFError("the file ends inside a compressed frame")
                break
            try:
                self._ready += self._frame.decompress(packed)
            except self._error as error:
                raise OSError(str(error)) from error
            self._inside = True
        data = bytes(self._ready[:size])
        del self._ready[:size]
        return data


@contextmanager
def open_plain(file: SourceFile, advance: Callable[[float], None] = lambda _amount: None) -> Iterator[BinaryIO]:
    """Open `file` for reading its bytes as they were before compression; `advance` hears of bytes read from disk."""
    with file.path.open("rb") as plain:
        raw = cast(BinaryIO, _Counted(plain, advance))
        if file.compression == ".gz":
            with gzip.open(raw) as stream:
                yield cast(BinaryIO, stream)
        elif file.compression == ".xz":
            with lzma.open(raw) as stream:
                yield cast(BinaryIO, stream)
        elif file.compression == ".zst":
            yield cast(BinaryIO, _ZstdReader(raw))
        else:
            yield raw


class EncodedReader:
    """Reads a stream as UTF-8 bytes, whatever it was written in.

    A byte order mark decides; without one, a NUL at every other place of the head means UTF-16; else UTF-8 is assumed
    until bytes turn up that are none. Then either the text is UTF-8 with damage (valid multi-byte sequences outnumber
    the bad bytes), and bad bytes are handed on for the caller to reject line by line, or it is of an older encoding,
    which charset-normalizer guesses from the surroundings of the first bad byte.

    `encoding` names what was assumed so far; `binary` is true when the head looks like no text at all.
    """

    def __init__(self, stream: BinaryIO) -> None:
        head = _read_fully(stream, _HEAD_BYTES)
        self.encoding = "utf-8"
        for mark, encoding in _BOMS:
            if head.startswith(mark):
                self.encoding = encoding
                head = head[len(mark) :]
                break
        else:
            self.encoding = _utf16_by_zeros(head) or "utf-8"
        self.binary = self.encoding == "utf-8" and _looks_binary(head)
        self._decided = self.encoding != "utf-8"
        self._wide = codecs.getincrementaldecoder(self.encoding)("surrogateescape") if self._decided else None
        self._stream = stream
        self._head = head

    def read(self, size: int) -> bytes:
        """Return about `size` bytes, empty only at the end. May contain bytes that are not UTF-8, see `to_utf8`."""
        raw = self._head or self._stream.read(size)
        self._head = b""
        if self._wide is None:
            return raw
        decoded = self._wide.decode(raw, final=not raw)
        while raw and not decoded:
            raw = self._stream.read(size)
            decoded = self._wide.decode(raw, final=not raw)
        return decoded.encode("utf-8", "surrogatepass")

    def to_utf8(self, block: bytes) -> tuple[bytes, bool]:
        """Return `block` (whole lines) in UTF-8, and whether it is: bad bytes stay where UTF-8 is damaged."""
        if not self._decided:
            first_bad = first_bad_byte(block)
            if first_bad < 0:
                return block, True
            self._decided = True
            self.encoding = _guess_encoding(block, first_bad)
        if self._wide is None and self.encoding != "utf-8":
            block = block.decode(self.encoding, "surrogateescape").encode("utf-8", "surrogatepass")
        return block, first_bad_byte(block) < 0


def first_bad_byte(text: bytes) -> int:
    """Position of the first byte that is not UTF-8, or -1. In chunks, so that no string as long as `text` is made."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), _HEAD_BYTES):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(text[start : start + _HEAD_BYTES], final=start + _HEAD_BYTES >= len(text))
        except UnicodeDecodeError as error:
            return start - pending + error.start
    return -1


def _read_fully(stream: BinaryIO, size: int) -> bytes:
    parts = []
    while size > 0 and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _utf16_by_zeros(head: bytes) -> str | None:
    """UTF-16 without a mark: most text has a zero in the high byte of nearly every unit, and none in the low byte."""
    even, odd = head[0::2], head[1::2]
    if len(odd) < 2:
        return None
    zeros_even, zeros_odd = even.count(0) / len(even), odd.count(0) / len(odd)
    if zeros_odd > 0.7 and zeros_even < 0.05:
        return "utf-16-le"
    if zeros_even > 0.7 and zeros_odd < 0.05:
        return "utf-16-be"
    return None


_CONTROLS = bytes([*range(9), 11, *range(14, 27), *range(28, 32), 127])


def _looks_binary(head: bytes) -> bool:
    """More than 4 % control characters: compressed and random bytes have 11 %, damaged text hardly any."""
    controls = len(head) - len(head.translate(None, _CONTROLS))
    return controls > 0.04 * len(head) or head.startswith((b"%PDF-", b"PK\x03\x04", b"\x89PNG", b"\x7fELF"))


def _guess_encoding(block: bytes, first_bad: int) -> str:
    """Name the encoding of `block`, whose byte at `first_bad` is not UTF-8."""
    sample = block[max(0, first_bad - (1 << 15)) : first_bad + (1 << 15)]
    decoded = sample.decode("utf-8", "surrogateescape")
    bad = sum("\udc80" <= character <= "\udcff" for character in decoded)
    multibyte = sum(character >= "\x80" for character in decoded) - bad
    if multibyte >= bad:
        return "utf-8"
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    if best is None or best.encoding in {"utf_8", "ascii"}:
        return "utf-8"
    if str(best) == sample.decode("cp1252", "replace"):  # several code pages agree on these bytes: take the common one
        return "cp1252"
    return best.encoding
