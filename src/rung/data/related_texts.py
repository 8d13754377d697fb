"""Texts that belong together: pairs with a score, pairs without one, or triplets of anchor, positive and negative."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.data.labelled import item_ids
from rung.data.rows import listed_names
from rung.data.similar_items import ComparableTexts
from rung.data.tables import find_tables, open_table, require_column
from rung.errors import DataError
from rung.progress import SILENT, Progress

SCORE_NAMES = ("score", "similarity", "similarity_score", "relatedness_score", "relatedness", "label")
"""Columns that are taken for the score when none is named."""


@dataclass(frozen=True)
class RelatedTexts:
    """Rows in the order of their ids, which come from content: files and rows in another order give equal rows.

    `columns`: two lists of texts, or three (anchor, positive, negative). `scores` (n,): how alike the two texts of a
    row are, higher for more alike; None where every row is just a pair that belongs together. `rejected` counts what
    was read and cannot be used, by reason.
    """

    ids: list[str]
    columns: tuple[list[str], ...]
    scores: NDArray[np.float64] | None
    names: tuple[str, ...] = ()
    score_name: str | None = None
    rejected: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def sha256(self) -> str:
        """Hash over the ids: the identity of these rows."""
        return hashlib.sha256("\n".join(sorted(self.ids)).encode()).hexdigest()

    @property
    def kind(self) -> str:
        """What the rows are, in words."""
        if self.scores is not None:
            return "pairs with a score"
        return "pairs" if len(self.columns) == 2 else "triplets"

    def take(self, rows: NDArray[np.int64]) -> RelatedTexts:
        """These rows, in the order of `rows`."""
        chosen = rows.tolist()
        return replace(
            self,
            ids=[self.ids[row] for row in chosen],
            columns=tuple([column[row] for row in chosen] for column in self.columns),
            scores=None if self.scores is None else self.scores[rows],
            rejected={},
        )

    def comparable(self) -> NDArray[np.uint64]:
        """(rows, columns): equal numbers for texts of the same words."""
        return np.stack([ComparableTexts.of(column).sequence for column in self.columns], axis=1)


@dataclass(frozen=True)
class RelatedSplit:
    """Rows to train, to choose and to judge by, and sentences about what was left out."""

    train: RelatedTexts
    valid: RelatedTexts
    test: RelatedTexts
    remarks: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """The identity of all rows and of the part that each is in."""
        parts = (self.train, self.valid, self.test)
        return hashlib.sha256(":".join(part.sha256 for part in parts).encode()).hexdigest()


def read_related(
    paths: Sequence[Path | str],
    *,
    text: Sequence[str] = (),
    score: str | None = None,
    progress: Progress = SILENT,
) -> RelatedTexts:
    """Read tables with two or three columns of text and perhaps one of scores.

    Without names, the score is a column called as in `SCORE_NAMES`, and the texts are what is left, if that is two
    columns, or three without a score. Rows with an empty text or without a number for a score are left out and counted.

    Raises DataError: a file or column is missing, which columns are meant is not clear, nothing is left.
    """
    files = find_tables([Path(path) for path in paths])
    names: tuple[str, ...] = ()
    rows: list[tuple[tuple[str, ...], float]] = []
    rejected: Counter[str] = Counter()
    with progress.task("reading", sum(file.num_bytes for file in files), "B") as advance:
        for file in files:
            wanted = [*text, *([score] if score else [])]
            with open_table(file, wanted=wanted, advance=advance) as table:
                found, found_score = _columns(table.columns, text, score, file.name)
                if names and (found, found_score) != (names, score):
                    raise DataError("its columns are not those of the file before", where=file.name)
                names, score = found, found_score
                places = [table.columns.index(name) for name in names]
                score_place = None if score is None else table.columns.index(score)
                for row in table.rows:
                    texts = tuple(_text(row.values[place]) for place in places)
                    value = 0.0 if score_place is None else _number(row.values[score_place])
                    reason = row.problem or ("" if all(texts) else "a text is missing or empty")
                    reason = reason or ("" if math.isfinite(value) else "the score is no number")
                    if reason:
                        rejected[reason] += 1
                    else:
                        rows.append((texts, value))
    where = ", ".join(map(str, paths))
    if not rows:
        told = "; ".join(f"{count:,}: {reason}" for reason, count in rejected.most_common(3)) or "the files are empty"
        raise DataError(f"no row can be used ({told})", where=where, hint="name the columns: --text A --text B")
    ids = item_ids(["\x00".join(texts) for texts, _ in rows], [repr(value) for _, value in rows])
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    columns = tuple([texts[place] for texts, _ in rows] for place in range(len(names)))
    scores = None if score is None else np.array([value for _, value in rows])
    found_rows = RelatedTexts(ids, columns, scores, names, score).take(order)
    return replace(found_rows, rejected=dict(rejected))


def split_related(
    rows: RelatedTexts,
    *,
    valid: RelatedTexts | None = None,
    test: RelatedTexts | None = None,
    seed: int,
    share: float = 0.1,
    most: int = 1000,
) -> RelatedSplit:
    """Cut off what `valid` and `test` do not bring: `share` of the rows, at most `most`, and no text in two parts.

    Rows that share a text (compared as sequences of words) stay together. Where the user brings a part, it is never
    changed; training rows whose texts are those of a row in it are left out, as are repeated rows.

    Raises DataError when the rows hang together so that no part can be cut off, kinds of rows differ, or all rows to
    choose or to judge by have one score, with which nothing correlates.
    """
    remarks = [f"{count:,} rows left out: {reason}" for reason, count in rows.rejected.items()]
    for part, name in ((valid, "validation"), (test, "test")):
        if part is not None:
            if (len(part.columns), part.scores is None) != (len(rows.columns), rows.scores is None):
                raise DataError(f"the {name} rows are {part.kind}, the others {rows.kind}")
            remarks += [f"{count:,} {name} rows left out: {reason}" for reason, count in part.rejected.items()]
    once = np.array([row for row, item in enumerate(rows.ids) if "-" not in item], dtype=np.int64)
    if len(once) < len(rows):
        remarks.append(f"{len(rows) - len(once):,} rows left out: the same row again")
    train = rows.take(once)
    for given, name in ((valid, "validation"), (test, "test")):
        if given is not None:
            train = _without(train, given, name, remarks)
    wanted = min(most, max(1, round(share * len(train))))
    if test is None:
        test, train = _cut_off(train, wanted, seed)
    if valid is None:
        valid, train = _cut_off(train, wanted, seed + 1)
    for part, name in ((valid, "validation"), (test, "test")):
        if part.scores is not None and np.ptp(part.scores) == 0:
            raise DataError(
                f"the {len(part):,} {name} rows have one score, {part.scores[0]:g}: nothing correlates with it",
                hint="give rows of different scores: --valid FILE --test FILE",
            )
    return RelatedSplit(train, valid, test, tuple(remarks))


def _columns(
    columns: list[str], text: Sequence[str], score: str | None, where: str
) -> tuple[tuple[str, ...], str | None]:
    """The columns of texts, and that of the score or None."""
    for name in text:
        require_column(name, columns, where, "text")
    if score is not None:
        require_column(score, columns, where, "score")
    elif not text or len(text) == 2:
        by_name = {name.strip().lower(): name for name in columns if name not in text}
        score = next((by_name[known] for known in SCORE_NAMES if known in by_name), None)
    texts = tuple(text) or tuple(name for name in columns if name != score)
    most = 3 if score is None else 2
    if not 2 <= len(texts) <= most or len(set(texts)) < len(texts) or score in texts:
        raise DataError(
            f"which columns hold the texts is not clear: {listed_names(columns)}",
            where=where,
            hint="name two, --text A --text B (and --target for the score), or three: anchor, positive, negative",
        )
    return texts, score


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _without(train: RelatedTexts, held_out: RelatedTexts, name: str, remarks: list[str]) -> RelatedTexts:
    """`train` without rows of the same texts as a row of `held_out`, in whatever order."""
    known = {tuple(sorted(row)) for row in held_out.comparable().tolist()}
    leaked = np.array([tuple(sorted(row)) in known for row in train.comparable().tolist()], dtype=bool)
    if leaked.any():
        remarks.append(f"{int(leaked.sum()):,} training rows left out: their texts are those of a {name} row")
    return train.take(np.flatnonzero(~leaked))


def _cut_off(rows: RelatedTexts, wanted: int, seed: int) -> tuple[RelatedTexts, RelatedTexts]:
    """About `wanted` rows and the others: whole groups of rows that share texts, in an order keyed by `seed`."""
    groups = _connected(rows.comparable())
    keys = {group: _draw(group, seed) for group in np.unique(groups).tolist()}
    sizes = Counter(groups.tolist())
    chosen: set[int] = set()
    left = wanted
    for group in sorted(keys, key=keys.__getitem__):
        if sizes[group] <= left and len(chosen) + 1 < len(keys):
            chosen.add(group)
            left -= sizes[group]
    if not chosen:
        raise DataError(
            f"of {len(rows):,} rows no {wanted:,} can be held out: they hang together by texts that they share",
            hint="give rows to hold out: --valid FILE --test FILE",
        )
    held_out = np.isin(groups, list(chosen))
    return rows.take(np.flatnonzero(held_out)), rows.take(np.flatnonzero(~held_out))


def _connected(texts: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(rows,): equal for rows that share a text, directly or by way of others. The number comes from the texts."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    distinct, places = np.unique(texts, return_inverse=True)
    places = places.reshape(texts.shape)
    first, others = np.repeat(places[:, :1], texts.shape[1] - 1, axis=1).ravel(), places[:, 1:].ravel()
    links = coo_matrix((np.ones(len(first), np.int8), (first, others)), shape=(len(distinct), len(distinct)))
    _, component = connected_components(links, directed=False)
    smallest = np.full(component.max() + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, component, distinct)
    named: NDArray[np.int64] = (smallest >> np.uint64(1)).astype(np.int64)[component[places[:, 0]]]
    return named


def _draw(group: int, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=7).digest())
