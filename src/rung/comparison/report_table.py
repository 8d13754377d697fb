"""The report's tables, before they become HTML or Markdown: the same rows in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A heading; numeric columns are aligned to the right."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of finished cells. The first cell of a row is its heading; `source` names the record behind the numbers.

    `marked` maps a row's position to "chosen" or "reference", which the page sets apart (never by colour alone: a
    column says it too).
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    source: str = ""
    marked: dict[int, str] | None = None


def columns(*titles: str) -> list[Column]:
    """Columns from their titles; a leading `#` makes one numeric."""
    return [Column(title.removeprefix("#"), numeric=title.startswith("#")) for title in titles]
