"""From files to cached segments: what is unchanged is found again, what changed is made again, two at a time.

Files are taken in sorted order in *groups* (one large file, or neighbouring small ones; the borders between groups
depend on file names, so an added file disturbs its own group and seldom the next). A group whose files have the
content of an earlier run is not read at all. Otherwise it is read, streaming, and cut into segments whose borders
depend on the text, so that a changed file of many segments makes only those again that changed.

What is trusted: a file with the path, size, modification time and inode of the last run is taken to have the content
it had then, as git and rsync do, unless it was modified within two seconds of being hashed. All else is hashed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rung.data.cache import note_use
from rung.data.documents import Passage, Rejection
from rung.data.formats import ReadingNotes, read_files
from rung.data.pieces import lowest_rank_cuts
from rung.data.read import SourceFile
from rung.data.segments import VERSION, Ingredients, Segment, build_segment, read_cached
from rung.progress import Progress
from rung.runfolder import file_sha256, read_header, write_json

_SEGMENT_BYTES = (1 << 23, 1 << 24)  # least and most text of a segment, where passages allow
_GROUP_BYTES = (1 << 22, 1 << 24)  # least and most file size of a group of several files
_COMPRESSED_TO_PLAIN = 4  # a guess, only for sizing groups
_RACY_NS = 2_000_000_000
_UNREADABLE = "unreadable"

Items = list[Passage | Rejection]


@dataclass
class MadeSegments:
    """The segments of some files, in source order, and how they came about."""

    segments: list[Segment] = field(default_factory=list)
    reused: int = 0
    encodings: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)


class SegmentMaker:
    """Turns files into segments, with a cache folder and a few threads."""

    def __init__(self, cache: Path, *, text_column: str | None, piece_bytes: int, progress: Progress) -> None:
        self._cache = cache
        self._text_column = text_column
        self._piece_bytes = piece_bytes
        self._progress = progress
        self._known = _KnownFiles(cache / "files.json")

    def make(self, files: Sequence[SourceFile], *, is_valid_text: bool) -> MadeSegments:
        """Return the segments of `files`; `is_valid_text` keeps all that is readable."""
        made = MadeSegments()
        label = "reading validation text" if is_valid_text else "reading and cleaning"
        threads = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        with (
            self._progress.task(label, float(sum(file.num_bytes for file in files)), "B") as advance,
            ThreadPoolExecutor(threads, thread_name_prefix="rung-segment") as pool,
        ):
            builder = _Builder(pool, threads, self._cache / "segments", only_unreadable=is_valid_text)
            for group in _groups(files):
                self._make_group(group, builder, made, advance)
            builder.finish()
        self._known.save()
        ordinal = 0
        for index, segment in enumerate(made.segments):
            header = read_header(segment.folder)
            ordinal += 0 if header["opens_mid_source"] else 1
            made.segments[index] = replace(segment, header=header, first_ordinal=ordinal)
            ordinal += int(header["ordinals"])
        made.reused = builder.reused
        return made

    def _make_group(
        self,
        files: Sequence[SourceFile],
        builder: _Builder,
        made: MadeSegments,
        advance: Callable[[float], None],
    ) -> None:
        digest = hashlib.sha256(repr((VERSION, self._text_column, self._piece_bytes, builder.only_unreadable)).encode())
        for file in files:
            digest.update(f"{file.kind} {file.compression} {self._known.sha256(file)}\n".encode())
        record_path = self._cache / "groups" / f"{digest.hexdigest()}.json"
        names, units = tuple(file.name for file in files), tuple(file.row_unit for file in files)
        record = _read_record(record_path)
        if record is not None and all(builder.have(key) for key, _, _ in record["segments"]):
            advance(sum(file.num_bytes for file in files))
        else:
            notes = ReadingNotes()
            segments = []
            for items in _segments_of(read_files(files, self._text_column, notes, advance)):
                ingredients = Ingredients(items, units, self._piece_bytes, builder.only_unreadable)
                key = ingredients.key()
                builder.build(key, ingredients)
                segments.append((key, ingredients.first_file, ingredients.rows_before))
            record = {"segments": segments, "encodings": notes.encodings, "remarks": notes.remarks}
            record_path.parent.mkdir(parents=True, exist_ok=True)
            write_json(record_path, record)
        made.encodings.update(record["encodings"])
        made.remarks.extend(f"{names[number]}: {sentence}" for number, sentence in record["remarks"])
        made.segments.extend(
            Segment(key, builder.folder(key), names[file:], units[file:], {}, rows, builder.only_unreadable)
            for key, file, rows in record["segments"]
        )


class _Builder:
    """Builds segments on a few threads (numpy and SHA-256 release the interpreter lock), few at a time for memory."""

    def __init__(self, pool: ThreadPoolExecutor, threads: int, cache: Path, *, only_unreadable: bool) -> None:
        self._pool = pool
        self._limit = threads
        self._cache = cache
        self.only_unreadable = only_unreadable
        self._running: deque[Future[None]] = deque()
        self._sound: set[str] = set()  # keys built or checked in this run
        self.reused = 0

    def folder(self, key: str) -> Path:
        return self._cache / key[:2] / key

    def have(self, key: str) -> bool:
        """Whether the segment is in the cache and sound. Checked by hash: a damaged one is made again."""
        if key in self._sound:
            return True
        if read_cached(self.folder(key)) is None:
            return False
        self._sound.add(key)
        self.reused += 1
        return True

    def build(self, key: str, ingredients: Ingredients) -> None:
        if self.have(key):
            return
        self._sound.add(key)
        while len(self._running) >= self._limit:
            self._running.popleft().result()
        self._running.append(self._pool.submit(build_segment, ingredients, self.folder(key)))

    def finish(self) -> None:
        while self._running:
            self._running.popleft().result()


def _groups(files: Sequence[SourceFile]) -> Iterator[Sequence[SourceFile]]:
    sizes = [file.num_bytes * (_COMPRESSED_TO_PLAIN if file.compression else 1) for file in files]
    ranks = [zlib.crc32(file.name.encode("utf-8", "surrogateescape")) for file in files]
    start = 0
    for end in lowest_rank_cuts(sizes, ranks, *_GROUP_BYTES):
        yield files[start:end]
        start = end


def _segments_of(items: Iterator[Passage | Rejection]) -> Iterator[Items]:
    """Cut a stream of items into segments; what is held is at most one segment and the passage after it."""
    waiting: Items = []
    size = 0
    for item in items:
        waiting.append(item)
        size += len(item.text) if isinstance(item, Passage) else 0
        if size > _SEGMENT_BYTES[1]:
            sizes = [len(item.text) if isinstance(item, Passage) else 0 for item in waiting]
            ranks = [zlib.crc32(item.text[-64:]) if isinstance(item, Passage) else 0xFFFFFFFF for item in waiting]
            end = lowest_rank_cuts(sizes, ranks, *_SEGMENT_BYTES)[0]
            yield waiting[:end]
            waiting, size = waiting[end:], sum(sizes[end:])
    if waiting:
        yield waiting


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        segments, _, _ = (record[name] for name in ("segments", "encodings", "remarks"))
        if any(len(segment) != 3 for segment in segments):  # key, first file, rows before
            return None
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # absent, damaged, or of another form: made again
        return None
    note_use(path)
    return record


class _KnownFiles:
    """Content hashes of files by path, kept between runs with the state they were taken in."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._old: dict[str, Any] = {}
        with suppress(FileNotFoundError, ValueError):  # absent, or damaged: files are hashed again
            self._old = json.loads(path.read_text(encoding="utf-8"))
        self._new: dict[str, Any] = dict(self._old)

    def sha256(self, file: SourceFile) -> str:
        name = str(file.path.resolve())
        state = [file.num_bytes, file.modified_ns, file.inode]
        known = self._old.get(name)
        if known and known[:3] == state:
            return str(known[3])
        try:
            now = time.time_ns()
            content = file_sha256(file.path)
        except OSError:
            return _UNREADABLE  # reading reports it
        if now - file.modified_ns > _RACY_NS:
            self._new[name] = [*state, content]
        return content

    def save(self) -> None:
        if self._new != self._old:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, self._new)
            self._old = dict(self._new)
