"""Parallel text: pairs of a source and a target, from two columns of a table or from two files aligned line by line."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.data.labelled import item_ids
from rung.data.read import COMPRESSIONS, KINDS, READ_ERRORS, EncodedReader, SourceFile, open_plain
from rung.data.rows import listed_names
from rung.data.similar_items import ComparableTexts
from rung.data.tables import TABLE_KINDS, find_tables, open_table, require_column
from rung.errors import DataError
from rung.progress import SILENT, Progress

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Pairs:
    """Pairs in the order of their ids, which come from content: files and rows in another order give equal pairs.

    `rejected` counts what was read and cannot be used, by reason.
    """

    ids: list[str]
    sources: list[str]
    targets: list[str]
    source_name: str = "source"
    target_name: str = "target"
    rejected: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def sha256(self) -> str:
        """Hash over the ids: the identity of these pairs."""
        return hashlib.sha256("\n".join(sorted(self.ids)).encode()).hexdigest()

    @cached_property
    def num_bytes(self) -> int:
        """UTF-8 bytes of both sides."""
        return sum(len(text.encode("utf-8", "replace")) for text in (*self.sources, *self.targets))

    def take(self, indices: NDArray[np.int64]) -> Pairs:
        """These pairs, in the order of `indices`."""
        ids, sources, targets = ([side[i] for i in indices.tolist()] for side in (self.ids, self.sources, self.targets))
        return Pairs(ids, sources, targets, self.source_name, self.target_name)


@dataclass(frozen=True)
class PairSplit:
    """Pairs to train, to choose and to judge by, and sentences about what was left out of them."""

    train: Pairs
    valid: Pairs
    test: Pairs
    remarks: list[str]

    @property
    def sha256(self) -> str:
        """The identity of all pairs and of the part that each is in."""
        parts = (self.train, self.valid, self.test)
        return hashlib.sha256(":".join(part.sha256 for part in parts).encode()).hexdigest()


def read_pairs(
    paths: Sequence[Path | str],
    *,
    source: str | None = None,
    target: str | None = None,
    progress: Progress = SILENT,
) -> Pairs:
    """Read parallel text from tables (columns `source` and `target`), or from two text files with as many lines each.

    A table of two columns needs no names: the first is the source. Of two text files the first is the source, unless
    `source` and `target` are what their names end in (`train.en`, `train.de.gz`). Pairs with an empty side are left
    out and counted.

    Raises DataError: a file or column is missing, files differ in their number of lines, nothing is left.
    """
    files = [Path(path) for path in paths]
    if any(_is_line_file(path) for path in files):
        names, rows = _read_lines(files, source, target, progress)
    else:
        names, rows = _read_tables(files, source, target, progress)
    rejected: Counter[str] = Counter()
    sources, targets = [], []
    for left, right, problem in rows:
        reason = problem or _empty(left, right)
        if reason:
            rejected[reason] += 1
        else:
            sources.append(left.strip())
            targets.append(right.strip())
    where = ", ".join(map(str, files))
    if not sources:
        told = "; ".join(f"{count:,}: {reason}" for reason, count in rejected.most_common(3)) or "the files are empty"
        raise DataError(f"no pair has both sides ({told})", where=where, hint="check the columns: --source, --target")
    ids = item_ids(sources, targets)
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    found = Pairs(ids, sources, targets, *names).take(order)
    return Pairs(found.ids, found.sources, found.targets, *names, rejected=dict(rejected))


def split_pairs(
    pairs: Pairs,
    *,
    valid: Pairs | None = None,
    test: Pairs | None = None,
    seed: int,
    share: float = 0.05,
    most: int = 1000,
) -> PairSplit:
    """Cut off what `valid` and `test` do not bring: by a keyed hash of the source, `share` of all, at most `most`.

    Sources are compared as sequences of words, whatever their case and punctuation. Equal sources are never in two
    parts: training pairs whose source is in validation or test, and validation pairs whose source is in test, are
    left out; so are repetitions of a pair in training. A test set of the user's own is never changed.

    Raises DataError when there are too few different sources for all the parts.
    """
    remarks = _rejections(pairs, "")
    train = _once(pairs, remarks)
    wanted = min(most, max(1, round(share * len(train))))
    if test is None:
        test, train = _cut_off(train, wanted, seed)
    else:
        remarks += _rejections(test, "test ")
    if valid is None:
        valid, train = _cut_off(train, wanted, seed)
    else:
        remarks += _rejections(valid, "validation ")
    valid = _without(valid, [test], "validation pairs left out: their source is in test", remarks)
    train = _without(train, [valid, test], "training pairs left out: their source is held out", remarks)
    if not (len(train) and len(valid) and len(test)):
        raise DataError(
            f"{len(pairs):,} pairs are too few to train on, to validate and to test",
            hint="give more pairs, or others to hold out: --valid FILE --test FILE",
        )
    return PairSplit(train, valid, test, remarks)


# Splitting ------------------------------------------------------------------------------------------------------------


def _rejections(pairs: Pairs, part: str) -> list[str]:
    return [f"{count:,} {part}pairs left out: {reason}" for reason, count in pairs.rejected.items()]


def _cut_off(pairs: Pairs, wanted: int, seed: int) -> tuple[Pairs, Pairs]:
    """About `wanted` pairs and the others: whole sources by the smallest keys, never all of them."""
    sources = ComparableTexts.of(pairs.sources).sequence
    keys = np.array([_draw(source, seed) for source in sources.tolist()], dtype=np.int64)
    ranked = np.sort(keys)
    chosen = (keys <= ranked[min(wanted, len(ranked)) - 1]) & (keys < ranked[-1]) if len(keys) else np.zeros(0, bool)
    return pairs.take(np.flatnonzero(chosen)), pairs.take(np.flatnonzero(~chosen))


def _draw(source: int, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{source}".encode(), digest_size=7).digest())


def _once(pairs: Pairs, remarks: list[str]) -> Pairs:
    """Each pair once: the ids of repetitions end in `-1`, `-2`, ..."""
    kept = np.array([i for i, name in enumerate(pairs.ids) if "-" not in name], dtype=np.int64)
    if repeated := len(pairs) - len(kept):
        remarks.append(f"{repeated:,} pairs left out: the same pair again")
    return pairs.take(kept)


def _without(pairs: Pairs, held_out: Sequence[Pairs], told: str, remarks: list[str]) -> Pairs:
    """`pairs` without those whose source is in `held_out`."""
    known = np.concatenate([ComparableTexts.of(part.sources).sequence for part in held_out])
    leaked = np.isin(ComparableTexts.of(pairs.sources).sequence, known)
    if leaked.any():
        remarks.append(f"{int(leaked.sum()):,} {told}")
    return pairs.take(np.flatnonzero(~leaked))


# Reading --------------------------------------------------------------------------------------------------------------

_Row = tuple[str, str, str]
"""Source, target, and why the row cannot be used ("" when it can)."""


def _empty(left: str, right: str) -> str:
    if left.strip() and right.strip():
        return ""
    return "the target is empty" if left.strip() else "the source is empty" if right.strip() else "both sides are empty"


def _is_line_file(path: Path) -> bool:
    """Whether a path names a text file of lines: it is no folder and its name does not end like a table's."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSIONS]
    return not path.is_dir() and KINDS.get(suffixes[-1] if suffixes else "") not in TABLE_KINDS


def _language(path: Path) -> str:
    """What a name ends in, compression apart: `de` of `train.de.gz`."""
    suffixes = [suffix for suffix in path.suffixes if suffix.lower() not in COMPRESSIONS]
    return suffixes[-1].removeprefix(".") if suffixes else path.name


def _read_lines(
    files: list[Path], source: str | None, target: str | None, progress: Progress
) -> tuple[tuple[str, str], list[_Row]]:
    if len(files) != 2:
        raise DataError(
            f"{len(files)} text files are given where a source and a target belong together",
            where=", ".join(map(str, files)),
            hint="give two files with as many lines: train.en train.de; or one table with two columns",
        )
    names = [_language(path) for path in files]
    if {source, target} - {None} and (source or names[0], target or names[1]) != (names[0], names[1]):
        if (source or names[1], target or names[0]) != (names[1], names[0]):
            raise DataError(
                f"the files end in '{names[0]}' and '{names[1]}', not in '{source or target}'",
                where=", ".join(map(str, files)),
                hint="--source and --target name the ends of the files' names, or columns of a table",
            )
        files.reverse()
        names.reverse()
    sides = [read_lines(path, progress) for path in files]
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"the files are not aligned: {len(sides[0]):,} and {len(sides[1]):,} lines",
            where=", ".join(map(str, files)),
            hint="line n of one file has to be the translation of line n of the other",
        )
    rows = [
        (left or "", right or "", "not valid UTF-8" if left is None or right is None else "")
        for left, right in zip_longest(*sides)
    ]
    return (names[0], names[1]), rows


def read_lines(path: Path, progress: Progress = SILENT) -> list[str | None]:
    """The lines of a text file, plain or compressed; None where one is not valid text.

    Raises DataError when the file is missing, binary or damaged.
    """
    if not path.is_file():
        raise DataError("there is nothing at this path", where=str(path), hint="check the spelling")
    status = path.stat()
    compression = path.suffix.lower() if path.suffix.lower() in COMPRESSIONS else ""
    file = SourceFile(path, path.name, "text", compression, status.st_size, status.st_mtime_ns, status.st_ino)
    parts: list[bytes] = []
    try:
        with progress.task(f"reading {path.name}", status.st_size, "B") as advance, open_plain(file, advance) as stream:
            reader = EncodedReader(stream)
            if reader.binary:
                raise DataError("this is a binary file, not text", where=str(path), hint="give plain text, or a table")
            while block := reader.read(_BLOCK):
                parts.append(block)
            content, _ = reader.to_utf8(b"".join(parts))
    except READ_ERRORS as error:
        raise DataError(
            f"the file cannot be read to its end: {error or type(error).__name__}", where=str(path)
        ) from error
    lines = content.replace(b"\r\n", b"\n").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [_decoded(line) for line in lines]


def _decoded(line: bytes) -> str | None:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _read_tables(
    paths: list[Path], source: str | None, target: str | None, progress: Progress
) -> tuple[tuple[str, str], list[_Row]]:
    files = find_tables(paths)
    rows: list[_Row] = []
    names = (source or "", target or "")
    wanted = [name for name in (source, target) if name is not None]
    with progress.task("reading pairs", sum(file.num_bytes for file in files), "B") as advance:
        for file in files:
            with open_table(file, wanted=wanted, advance=advance) as table:
                names = _columns(table.columns, source, target, file.name)
                places = [table.columns.index(name) for name in names]
                for row in table.rows:
                    left, right = (row.values[place] for place in places)
                    rows.append((_text(left), _text(right), row.problem or _unfit(left, right)))
    return names, rows


def _columns(columns: list[str], source: str | None, target: str | None, where: str) -> tuple[str, str]:
    """The columns to read; of two columns, those that were not named."""
    named = {"source": source, "target": target}
    for purpose, name in named.items():
        if name is not None:
            require_column(name, columns, where, purpose)
    rest = [name for name in columns if name not in named.values()]
    missing = [purpose for purpose, name in named.items() if name is None]
    if missing and (len(columns) != 2 or len(rest) != len(missing)):
        raise DataError(
            f"which column is the {missing[0]} is not known",
            where=where,
            hint=f"name it with --{missing[0]}; the columns are {listed_names(columns)}",
        )
    found = {**named, **dict(zip(missing, rest, strict=False))}
    if found["source"] == found["target"]:
        raise DataError("source and target are the same column", where=where, hint="name two columns")
    return str(found["source"]), str(found["target"])


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _unfit(left: Any, right: Any) -> str:
    return (
        "a list or an object where a text should be" if any(isinstance(v, list | dict) for v in (left, right)) else ""
    )
