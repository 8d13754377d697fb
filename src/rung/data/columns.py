"""Which column is the label and which hold the text, when nobody said: a guess that explains itself.

A name that people give to labels decides first, then the values: a label repeats itself, a text hardly does. What is
numbered, dated or unique a row is neither. Where two columns would do, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rung.data.rows import listed_names
from rung.errors import DataError

LABEL_NAMES = (
    "label", "labels", "target", "class", "category", "intent", "sentiment", "polarity", "y", "tag", "topic",
    "gold", "gold_label", "classification", "type", "queue", "department", "priority",
)  # fmt: skip
TITLE_NAMES = ("subject", "title", "headline")
BODY_NAMES = (
    "text", "content", "body", "message", "sentence", "comment", "review", "question", "query", "utterance",
    "description", "document", "post", "tweet", "email",
)  # fmt: skip
MISSING_LABELS = frozenset({"", "nan", "null", "<na>", "#n/a"})
"""Labels, in lower case, that stand for no label. "none", "na" and "n/a" are left alone: they name classes too."""

_MOST_CLASSES = 1000
_LABEL_CHARACTERS = 60
_FREE_TEXT_WORDS = 3.0
_FREE_TEXT_DISTINCT = 0.3
_KEY_NAME = re.compile(r"(^|_)(id|key|uuid|no|nr|index)$")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d{4}/\d\d?/\d\d?( .*)?|\d\d?[./-]\d\d?[./-]\d{2,4}( .*)?")


@dataclass(frozen=True)
class ColumnTraits:
    """What the values of one column look like; shares are of the non-empty values."""

    name: str
    filled: int
    distinct: int
    mean_characters: float
    mean_words: float
    numbers: float
    dates: float

    @property
    def is_unique(self) -> bool:
        return self.filled > 1 and self.distinct == self.filled

    @property
    def is_label_like(self) -> bool:
        """Few short values that come back: on average each at least twice."""
        return (
            2 <= self.distinct <= min(_MOST_CLASSES, self.filled // 2)
            and self.mean_characters <= _LABEL_CHARACTERS
            and self.dates < 0.9
            and not self.is_quantity
        )

    @property
    def is_quantity(self) -> bool:
        """Numbers with many values: fewer than ten rows a value, and more than twenty values."""
        return self.numbers == 1 and self.distinct > max(20, self.filled / 10)

    @property
    def is_free_text(self) -> bool:
        return (
            self.mean_words >= _FREE_TEXT_WORDS
            and self.distinct >= _FREE_TEXT_DISTINCT * self.filled
            and self.numbers < 0.9
            and self.dates < 0.9
        )


def traits(name: str, values: Sequence[Any]) -> ColumnTraits:
    """Look at all values of a column; None and blank strings count as empty."""
    strings = [text for value in values if value is not None and (text := as_string(value).strip())]
    filled = len(strings)
    share = 1 / max(filled, 1)
    return ColumnTraits(
        name,
        filled,
        len(set(strings)),
        sum(map(len, strings)) * share,
        sum(len(text.split()) for text in strings) * share,
        sum(_NUMBER.fullmatch(text) is not None for text in strings) * share,
        sum(_DATE.fullmatch(text) is not None for text in strings) * share,
    )


def as_string(value: Any) -> str:
    """A cell as text: true and false in lower case, whole numbers without decimals, dates in ISO form."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def guess_target(columns: Mapping[str, ColumnTraits], taken: Sequence[str], where: str) -> tuple[str, str]:
    """The label column among those not `taken`, and a sentence that says why. DataError if it is not clear."""
    free = {name: column for name, column in columns.items() if name not in taken and column.filled}
    by_name = {name.strip().lower(): name for name in reversed(free)}
    for known in LABEL_NAMES:
        name = by_name.get(known)
        if name is not None and free[name].distinct < free[name].filled:
            return name, f"The label is taken from column '{name}', by its name ({free[name].distinct:,} values)."
    likely = [name for name, column in free.items() if column.is_label_like]
    if not likely and (named := [by_name[known] for known in LABEL_NAMES if known in by_name]):
        return named[0], f"The label is taken from column '{named[0]}', by its name."  # its values are checked later
    if len(likely) == 1:
        column = free[likely[0]]
        return likely[0], (
            f"The label is taken from column '{likely[0]}': the only one with few short values that come back "
            f"({column.distinct:,} values in {column.filled:,} rows)."
        )
    if likely:
        problem = f"it is not clear which column holds the label: {listed_names(likely)} would do"
    else:
        problem = f"no column looks like a label; the columns are {listed_names(list(columns))}"
    raise DataError(problem, where=where, hint="name it: --target COLUMN (without header line: its number, from 1)")


def guess_text(columns: Mapping[str, ColumnTraits], taken: Sequence[str], where: str) -> tuple[list[str], str]:
    """The text columns among those not `taken`, in the order of the table, and a sentence that says why.

    Raises DataError when no column holds text.
    """
    free = {name: column for name, column in columns.items() if name not in taken and column.filled}
    body = next((name for known in BODY_NAMES for name in free if name.strip().lower() == known), None)
    if body is not None and free[body].numbers < 0.9:
        titles = [name for name in free if name.strip().lower() in TITLE_NAMES and free[name].numbers < 0.9]
        chosen = [name for name in free if name == body or name in titles]
        return chosen, f"The text is taken from {_columns(chosen)}, by {_its(chosen)} name."
    texts = [name for name, column in free.items() if column.is_free_text]
    if not texts:  # a table of single words still has something to read
        texts = [name for name, c in free.items() if c.numbers < 0.9 and c.dates < 0.9 and not _looks_numbered(name, c)]
        texts = sorted(texts, key=lambda name: (-free[name].mean_characters, name))[:1]
    if not texts:
        raise DataError(
            f"no column holds text; the columns are {listed_names(list(columns))}",
            where=where,
            hint="name it: --text COLUMN (without header line: its number, from 1)",
        )
    longest = max(free[name].mean_characters for name in texts)
    chosen = [name for name in texts if free[name].mean_characters >= longest / 2]
    words = ", ".join(f"{free[name].mean_words:.0f}" for name in chosen)
    return chosen, (
        f"The text is taken from {_columns(chosen)}: the longest free text "
        f"({words} words a row on average, {free[chosen[0]].distinct:,} different values)."
    )


def _looks_numbered(name: str, column: ColumnTraits) -> bool:
    """Keys such as `A-1042`: one word, unique a row, under a name that says so."""
    return column.is_unique and column.mean_words == 1 and _KEY_NAME.search(name.lower()) is not None


def _columns(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return f"column {quoted[0]}" if len(quoted) == 1 else f"columns {', '.join(quoted[:-1])} and {quoted[-1]}"


def _its(names: Sequence[str]) -> str:
    return "its" if len(names) == 1 else "their"
