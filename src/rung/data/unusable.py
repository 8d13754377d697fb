"""Rows that cannot be learned from: a few are left out and named, many are an error.

Large files of conversations and preferences hold some rows that say nothing: an empty answer, two user turns in a row.
"""

from __future__ import annotations

from collections.abc import Sequence

from rung.errors import DataError

MOST_UNUSABLE = 0.05
"""The share of rows that may be left out."""
_NAMED = 8
_LISTED = 20


class UnusableRows:
    """What was found in the rows of files so far: where, the problem, and what to do about it."""

    def __init__(self) -> None:
        self._found: list[tuple[str, DataError]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, place: str, error: DataError) -> None:
        """Note the row at `place`."""
        self._found.append((place, error))

    def require_few(self, rows: int) -> None:
        """Raise DataError when more than 5 % of `rows` cannot be used, or none can: the first is explained."""
        if not self._found or (len(self) < rows and len(self) <= MOST_UNUSABLE * rows):
            return
        (place, first), *others = self._found
        also = f", also {_listed([place for place, _ in others], _NAMED - 1)}" if others else ""
        raise DataError(
            f"{first.problem}; {len(self):,} of {rows:,} rows cannot be used{also}", where=place, hint=first.hint
        )

    def remarks(self, items: str) -> list[str]:
        """A sentence for each problem: how many `items` were left out for it, and where they stand."""
        places: dict[str, list[str]] = {}
        for place, error in self._found:
            places.setdefault(error.problem, []).append(place)
        by_number = sorted(places.items(), key=lambda entry: -len(entry[1]))
        return [
            f"{len(where):,} {items} left out: {problem} ({_listed(where, _LISTED)})" for problem, where in by_number
        ]


def _listed(places: Sequence[str], most: int) -> str:
    return ", ".join(places[:most]) + (f" and {len(places) - most:,} more" if len(places) > most else "")
