"""From tables to labelled items: columns found, labels named, every row either an item or rejected with its reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rung.data.columns import MISSING_LABELS, ColumnTraits, as_string, guess_target, guess_text, traits
from rung.data.documents import excerpt
from rung.data.labelled import LabelledItems, item_ids
from rung.data.read import SourceFile
from rung.data.tables import TableRow, find_tables, open_table, require_column
from rung.errors import DataError
from rung.progress import SILENT, Progress

LEAST_ITEMS = 20
"""Fewer labelled rows than this cannot be split into parts that mean anything."""
LEAST_TO_TRAIN = 8
"""The same where test items are given: eight labels a class are a usual start (SetFit, arXiv 2209.11055)."""
FEW_ITEMS = 200


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that became no item. `row` is the line it begins in (Parquet: its number), counted from 1."""

    file: str
    row: int
    reason: str


@dataclass(frozen=True)
class LabelledTable:
    """What reading found. `guessed` and `warnings` are sentences for people.

    `unlabelled` holds the texts of rows without a label if they were asked for. `unseen_labels` counts the rows whose
    label was not among the `label_names` that were given; those labels follow the given ones in `items.label_names`.
    """

    items: LabelledItems
    target: str
    text_columns: tuple[str, ...]
    files: list[str]
    guessed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    unseen_labels: dict[str, int] = field(default_factory=dict)


def read_labelled(
    paths: Path | Sequence[Path],
    *,
    target: str | None = None,
    text_columns: Sequence[str] | None = None,
    group: str | None = None,
    time: str | None = None,
    label_names: Sequence[str] | None = None,
    keep_unlabelled: bool = False,
    test_is_given: bool = False,
    progress: Progress = SILENT,
) -> LabelledTable:
    """Read labelled text from tables (CSV, TSV, JSON Lines, Parquet; files or folders, plain or compressed).

    Columns that are not named are guessed. Items come in the order of their ids, so files and rows in another order
    give equal items. With `label_names` (data for a model that exists) any labels are accepted; without, they have to
    be such that something can be learned from them.

    Raises DataError: a column is missing or cannot be guessed, a file cannot be read, no row can be used, the target
    is unique a row, a quantity, or has one class only, or there are fewer items than
    `LEAST_ITEMS` (`LEAST_TO_TRAIN` if `test_is_given`).
    """
    files = find_tables([paths] if isinstance(paths, Path) else list(paths))
    named = _Columns(target, tuple(text_columns or ()), group, time)
    rows, encodings = _Rows(complete=not named.complete), []
    with progress.task("reading", sum(file.num_bytes for file in files), "bytes") as advance:
        for file in files:
            with open_table(file, wanted=named.names, advance=advance) as table:
                named.require(table.columns, file.name)
                rows.add(file, table.columns, table.rows, named.names)
                if table.encoding != "utf-8":
                    encodings.append(f"'{file.name}' is not UTF-8: it was read as {table.encoding}.")
    where = ", ".join(file.name for file in files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    if not rows.places:
        raise DataError("the table has no rows", where=where, hint="give a table with a header line and rows")
    named, guessed = _guess(rows.traits(), named, where) if not named.complete else (named, [])
    found = _Found(named, keep_unlabelled)
    found.take(rows)
    found.require_some(where)
    labels = canonical_labels(found.labels)
    chosen = str(named.target)
    warnings = [] if label_names is not None else check_labels(labels, chosen, where, test_is_given=test_is_given)
    items, unseen = _items(found, labels, label_names)
    return LabelledTable(
        items,
        chosen,
        named.texts,
        [file.name for file in files],
        [*encodings, *guessed],
        warnings,
        found.rejected,
        sorted(found.unlabelled),
        unseen,
    )


def joined_text(values: Sequence[Any]) -> str:
    """The text of an item from the cells of its text columns: those that are not blank, one under the other."""
    parts = [value if isinstance(value, str) else as_string(value) for value in values if value is not None]
    if len(parts) == 1:  # the usual case, and a million times
        return parts[0] if parts[0].strip() else ""
    return "\n".join([part for part in parts if part.strip()])


def natural_order(names: Sequence[str]) -> list[str]:
    """Distinct names sorted so that 2 comes before 10."""

    def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
        pieces = [piece for piece in re.split(r"(\d+)", name) if piece]
        return [(0, int(p), "") if p.isdecimal() and p.isascii() else (1, 0, p.casefold()) for p in pieces], name

    return sorted(set(names), key=key)


def canonical_labels(labels: Sequence[str]) -> list[str]:
    """Labels that do not depend on the file format: 1.0 is 1 and True is true if all labels are of that kind."""
    distinct = set(labels)
    if all(re.fullmatch(r"[+-]?\d+(\.0*)?", label) for label in distinct):
        names = {label: label.split(".")[0].removeprefix("+") for label in distinct}
    elif all(label.lower() in ("true", "false") for label in distinct):
        names = {label: label.lower() for label in distinct}
    else:
        return list(labels)
    return [names[label] for label in labels]


def check_labels(labels: Sequence[str], target: str, where: str, *, test_is_given: bool = False) -> list[str]:
    """Sentences about labels that little can be learned from. Raises DataError where nothing can."""
    found, least = traits(target, labels), LEAST_TO_TRAIN if test_is_given else LEAST_ITEMS
    rows, distinct = found.filled, found.distinct
    place = f"{where}: column '{target}'"
    has_decimals = any("." in label for label in labels)
    if found.is_unique and rows > 2 and not (found.is_quantity and has_decimals):
        raise DataError(
            f"'{target}' has a different value in each of its {rows:,} rows: it is an id or a text, not a label",
            where=place,
            hint="name the column with the labels: --target COLUMN",
        )
    if found.is_quantity:
        raise DataError(
            f"'{target}' holds numbers with many values ({distinct:,} in {rows:,} rows): predicting them is "
            "regression, and this is a comparison of classifiers",
            where=place,
            hint="add a column with a few ranges of it (low, middle, high, say) and name that one: --target COLUMN",
        )
    if distinct > rows / 2 and rows >= least:
        raise DataError(
            f"'{target}' has {distinct:,} different values in {rows:,} rows: too few rows a class to learn from",
            where=place,
            hint="name the column with the labels: --target COLUMN, or merge rare classes",
        )
    if distinct == 1:
        raise DataError(
            f"all {rows:,} rows have the same label, '{excerpt(labels[0])}': there is nothing to tell apart",
            where=place,
            hint="add rows of at least one other class",
        )
    if rows < least:
        raise DataError(
            f"{rows} labelled rows are too few to train {'' if test_is_given else 'and test '}on: "
            f"at least {least} are needed",
            where=place,
            hint=f"label more rows; {FEW_ITEMS} give a first answer, a few thousand a firm one"
            + ("" if test_is_given else f" (with --test FILE {LEAST_TO_TRAIN} are enough to begin)"),
        )
    return _label_warnings(Counter(labels))


def _label_warnings(counts: Counter[str]) -> list[str]:
    total, warnings = counts.total(), []
    if total < FEW_ITEMS:
        warnings.append(
            f"{total} labelled rows are few: expect wide intervals, and a verdict of 'not decided' ({FEW_ITEMS} or "
            "more are advised)."
        )
    for size, fate in ((1, "is trained on but never tested"), (2, "has one example to train on and one to test on")):
        rare = natural_order([name for name, count in counts.items() if count == size])
        shown = ", ".join(f"'{excerpt(name)}'" for name in rare[:5]) + (" ..." if len(rare) > 5 else "")
        examples = "one example" if size == 1 else f"{size} examples"
        if len(rare) == 1:
            warnings.append(f"The class {shown} has {examples}: it {fate}.")
        elif rare:
            warnings.append(f"{len(rare)} classes have {examples} each ({shown}): each {fate}.")
    return warnings


# Rows -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Columns:
    """The columns that were named, or (`target`, `texts`) guessed since."""

    target: str | None
    texts: tuple[str, ...]
    group: str | None
    time: str | None

    @property
    def names(self) -> list[str]:
        return [name for name in (self.target, *self.texts, self.group, self.time) if name is not None]

    @property
    def complete(self) -> bool:
        return self.target is not None and bool(self.texts)

    def require(self, columns: Sequence[str], where: str) -> None:
        """Raise DataError unless the table has all of them."""
        purposes = [("target", self.target), *(("text", name) for name in self.texts)]
        for purpose, name in [*purposes, ("group", self.group), ("time", self.time)]:
            if name is not None:
                require_column(name, columns, where, purpose)


class _Rows:
    """The rows of all files, as columns: all of them where something is to be guessed, else those that were named."""

    def __init__(self, *, complete: bool) -> None:
        self.columns: dict[str, list[Any]] = {}
        self.places: list[tuple[str, int, str]] = []  # file, row, what is wrong with it
        self._complete = complete

    def add(self, file: SourceFile, names: list[str], rows: Any, named: Sequence[str]) -> None:
        kept = [(at, name) for at, name in enumerate(names) if self._complete or name in named]
        before = len(self.places)
        own: list[list[Any]] = [[] for _ in kept]
        row: TableRow
        for row in rows:
            self.places.append((file.name, row.number, row.problem))
            for column, (at, _) in zip(own, kept, strict=True):
                column.append(row.values[at])
        added = len(self.places) - before
        for (_, name), values in zip(kept, own, strict=True):
            self.columns.setdefault(name, [None] * before).extend(values)
        for values in self.columns.values():
            values.extend([None] * (before + added - len(values)))  # a column that this file does not have

    def traits(self) -> Mapping[str, ColumnTraits]:
        """Traits of all columns, over the rows that can be used."""
        sound = [not problem for *_, problem in self.places]
        return {
            name: traits(name, [value for value, good in zip(values, sound, strict=True) if good])
            for name, values in self.columns.items()
        }


def _guess(columns: Mapping[str, ColumnTraits], named: _Columns, where: str) -> tuple[_Columns, list[str]]:
    """`named` with what it lacks, and a sentence for each guess."""
    sentences = []
    if named.target is None:
        target, sentence = guess_target(columns, named.names, where)
        named = replace(named, target=target)
        sentences.append(sentence)
    if not named.texts:
        texts, sentence = guess_text(columns, named.names, where)
        named = replace(named, texts=tuple(texts))
        sentences.append(sentence)
    return named, sentences


@dataclass
class _Found:
    """Rows on their way to items."""

    named: _Columns
    keep_unlabelled: bool
    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)

    def take(self, rows: _Rows) -> None:
        nothing = [None] * len(rows.places)
        groups = rows.columns[self.named.group] if self.named.group is not None else nothing
        times = rows.columns[self.named.time] if self.named.time is not None else nothing
        texts = zip(*(rows.columns[name] for name in self.named.texts), strict=True)
        for place, label, cells, group, time in zip(
            rows.places, rows.columns[str(self.named.target)], texts, groups, times, strict=True
        ):
            reason = self._take_row(place[2], label, cells, group, time)
            if reason:
                self.rejected.append(RejectedRow(place[0], place[1], reason))

    def _take_row(self, problem: str, label: Any, cells: tuple[Any, ...], group: Any, time: Any) -> str:
        """Keep one row, or say why not."""
        if problem:
            return problem
        if any(isinstance(value, list | dict) for value in (label, *cells)):
            return "a list or an object where a text or a label should be"
        text, name = joined_text(cells), "" if label is None else as_string(label).strip()
        if not text:
            return "empty text"
        if name.lower() in MISSING_LABELS:
            if self.keep_unlabelled:
                self.unlabelled.append(text)
            return "no label"
        when = "" if time is None else as_string(time).strip()
        if self.named.time is not None and not when:
            return "no time"
        self.texts.append(text)
        self.labels.append(name)
        self.groups.append("" if group is None else as_string(group).strip())
        self.times.append(when)
        return ""

    def require_some(self, where: str) -> None:
        if not self.texts:
            reasons = Counter(row.reason for row in self.rejected)
            counted = "; ".join(f"{count:,} rows: {reason}" for reason, count in reasons.most_common(5))
            raise DataError(
                f"no row has both a text and a label ({counted or 'the table has no rows'})",
                where=f"{where}: text {', '.join(map(repr, self.named.texts))}, label {self.named.target!r}",
                hint="check the columns: --target COLUMN --text COLUMN",
            )


def _items(found: _Found, labels: list[str], label_names: Sequence[str] | None) -> tuple[LabelledItems, dict[str, int]]:
    times = sortable_times(found.times, found.named.time) if found.named.time is not None else found.times
    rows = sorted(zip(found.texts, labels, found.groups, times, strict=True))  # equal items get equal ids in any order
    ids = item_ids([row[0] for row in rows], [row[1] for row in rows])
    order = sorted(range(len(rows)), key=ids.__getitem__)
    known = tuple(label_names or ())
    new = natural_order([label for label in set(labels) if label not in set(known)])
    names = (*known, *new)
    number = {name: at for at, name in enumerate(names)}
    counts = Counter(labels)
    items = LabelledItems(
        ids=[ids[at] for at in order],
        texts=[rows[at][0] for at in order],
        labels=np.array([number[rows[at][1]] for at in order], np.int64),
        label_names=names,
        groups=[rows[at][2] for at in order] if found.named.group is not None else None,
        times=[rows[at][3] for at in order] if found.named.time is not None else None,
        rejected=dict(Counter(row.reason for row in found.rejected)),
    )
    return items, {name: counts[name] for name in new} if label_names is not None else {}


# Times ----------------------------------------------------------------------------------------------------------------


def sortable_times(values: Sequence[str], column: str | None = None) -> list[str]:
    """Times as strings whose order is the order of time: all of them numbers, or all of them ISO dates or times.

    Raises DataError for other notations: 03/04/2025 is read in two ways.
    """
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return [_iso(value, column) for value in values]
    lowest = min(numbers, default=0.0)
    if not np.isfinite(numbers).all():
        raise DataError("a time is not a finite number", where=f"column '{column}'")
    width = len(f"{max(numbers, default=0.0) - min(lowest, 0.0):.6f}")
    return [f"{number - min(lowest, 0.0) + 0.0:0{width}.6f}" for number in numbers]  # + 0.0: no sign on -0.0


def _iso(value: str, column: str | None) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise DataError(
            f"the time '{excerpt(value)}' is neither a number nor in ISO form",
            where=f"column '{column}'",
            hint=f"write times as {date(2025, 4, 3).isoformat()} or {datetime(2025, 4, 3, 14, 30).isoformat()}",
        ) from error
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds")
