"""Showing how word vectors do on similarity and analogy sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rung.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from rung.records import Record


def evaluate_vectors(run: Path, sets: Sequence[Path], *, as_json: bool) -> None:
    """Measure and show; `sets` are files and folders. UsageError when there are none."""
    from rung.cli.console import print_json, results, watching
    from rung.tasks.word_vectors.using import evaluate_vectors as measure

    if not sets:
        raise UsageError(
            "word vectors are measured on sets of word pairs and analogies",
            hint=f"name files or a folder of them: rung eval {run} word_similarity_sets/",
        )
    with watching(as_json=as_json) as watcher:
        found = measure(run, sets, progress=watcher)
    if as_json:
        print_json(found.to_json())
        return
    console = results()
    if found.similarities:
        console.print("\n[bold]Similarity[/] [dim](rank correlation with people; pairs with unknown words left out)[/]")
        table = _table("pairs")
        for one in found.similarities:
            _add(table, _name(one.record), one.record, f"{one.covered:,} of {one.pairs:,}")
        console.print(table)
    if found.analogies:
        console.print("\n[bold]Analogies[/] [dim](share answered rightly, of questions whose words are known)[/]")
        table = _table("questions")
        for result in found.analogies:
            _add(
                table, _name(result.accuracy), result.accuracy, f"{result.accuracy.n:,} of {result.accuracy_of_all.n:,}"
            )
            for section in result.sections:
                name = section.name.removeprefix(f"{result.accuracy.name}, ")
                _add(table, f"  {name}", section, f"{section.n:,}")
        console.print(table)


def _table(of: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2))
    table.add_column("set")
    table.add_column("value", justify="right")
    table.add_column("95 % interval")
    table.add_column(of, justify="right")
    return table


def _name(record: Record) -> str:
    """The name of the set: the record's begins with what was measured on it."""
    return record.name.partition(" ")[2]


def _add(table: Table, name: str, record: Record, coverage: str) -> None:
    from rich.text import Text

    if record.value is None:
        table.add_row(name, "", f"not measured: {record.not_measured}", coverage)
        return
    spread = f"[{record.interval.low:.3f}, {record.interval.high:.3f}]" if record.interval else ""
    table.add_row(name, f"{record.value:.3f}", Text(spread), coverage)
