"""How a lower floor tells that it is busy, without knowing who listens.

A terminal progress bar, a log file or a test can all stand behind the same two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, Self


class Highlighted(str):
    """A message of which some stretches stand out: in colour on a terminal, between marks in plain text."""

    parts: tuple[tuple[str, bool], ...]
    """The stretches, and whether each stands out."""

    @classmethod
    def of(cls, parts: Sequence[tuple[str, bool]]) -> Self:
        """Join stretches of text; those that stand out are between ⟦ and ⟧."""
        made = cls("".join(f"⟦{text}⟧" if stands_out else text for text, stands_out in parts))
        made.parts = tuple(parts)
        return made


class Progress(Protocol):
    """Receives the progress of long work."""

    def task(self, label: str, total: float | None, unit: str) -> AbstractContextManager[Callable[[float], None]]:
        """Open a piece of work of `total` `unit`s (None: unknown); the yielded function advances it by an amount."""
        ...

    def say(self, message: str) -> None:
        """Tell one finished fact, in a sentence."""
        ...


class SilentProgress:
    """Tells nobody."""

    @contextmanager
    def task(self, label: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:  # noqa: ARG002
        """Do nothing with what is told."""
        yield lambda _amount: None

    def say(self, message: str) -> None:
        """Do nothing with what is told."""


SILENT: Progress = SilentProgress()
