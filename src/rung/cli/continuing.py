"""What carrying on gained and lost, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rung.cli.console import results
from rung.cli.reports import show_training

if TYPE_CHECKING:
    from rung.records import Record
    from rung.tasks.continuing.drifting import DriftReport
    from rung.tasks.continuing.gains import Change
    from rung.tasks.continuing.training import ContinuedSummary


def show_continued(summary: ContinuedSummary) -> None:
    """The training as any other, then gains and losses, and how far the texts are apart."""
    show_training(summary, train_on="rung train --from {run} TEXT --replay 0.1")
    console = results()
    if summary.changes:
        _show_changes(console, summary)
    if summary.task_scores:
        _show_task_scores(console, summary.task_scores)
    for what, why in summary.not_measured.items():
        console.print(f"[dim]not measured: {what} ({why})[/]")
    if summary.drift is not None:
        _show_drift(console, summary.drift)


def _show_changes(console: Console, summary: ContinuedSummary) -> None:
    console.print("\n[bold]Gained and lost[/] [dim](fewer is better; changes are paired by document)[/]")
    table = Table.grid(padding=(0, 2))
    table.add_row("", "", "before", "after", "change", "", "documents", style="dim")
    for change in summary.changes:
        table.add_row("", change.name, _value(change.before), _value(change.after), *_told(change))
    console.print(table)
    if summary.distance is not None:
        console.print(f"[dim]The weights moved by {summary.distance:.1%} of their norm.[/]")


def _show_task_scores(console: Console, scores: Sequence[Change]) -> None:
    console.print("\n[bold]Task scores[/] [dim](share right by prompts without an example, more is better;[/]")
    console.print("[dim]guess: always the most frequent label)[/]")
    table = Table.grid(padding=(0, 2))
    table.add_row("", "", "guess", "before", "after", "change", "", "items", style="dim")
    for change in scores:
        name, guess = Text(change.short_name), Text(f"{change.majority:.3f}", "dim")
        after = "-" if change.after.value is None else _value(change.after)  # why is told below the table
        told = _told(change, fewer_is_better=False)
        table.add_row("", name, guess, _value(change.before), after, *told)
    console.print(table)
    for change in scores:
        if change.after.not_measured:
            console.print(Text(f"not measured: {change.short_name} ({change.after.not_measured})", "dim"))


def _told(change: Change, *, fewer_is_better: bool = True) -> tuple[Text, Text, Text]:
    """The change, green or red where its interval is clear of zero; the interval; and how many items it is over."""
    record = change.change
    if record.value is None or record.interval is None:
        return Text("" if record.value is None else f"{record.value:+.3f}"), Text(""), Text("")
    styles = ("green", "red") if fewer_is_better else ("red", "green")
    style = styles[0] if record.interval.high < 0 else styles[1] if record.interval.low > 0 else ""
    spread = f"[{record.interval.low:+.3f}, {record.interval.high:+.3f}]"
    return Text(f"{record.value:+.3f}", style), Text(spread, "dim"), Text(f"{record.n:,}", "dim")


def _show_drift(console: Console, drift: DriftReport) -> None:
    console.print(
        "\n[bold]Drift[/] [dim](new text against old; beside it, parts of the old text against each other)[/]"
    )
    table = Table.grid(padding=(0, 2))
    for found, null in zip(drift.records[::2], drift.records[1::2], strict=True):
        spread = f"[{null.interval.low:.3f}, {null.interval.high:.3f}]" if null.interval else ""
        table.add_row(
            "", found.name, f"{_value(found)} {found.unit}", Text(f"old text: {_value(null)} {spread}", "dim")
        )
    console.print(table)
    console.print(Text("  new: " + ", ".join(word.word for word in drift.tell_new)))
    console.print(Text("  old: " + ", ".join(word.word for word in drift.tell_old)))


def _value(record: Record) -> str:
    return "not measured" if record.value is None else f"{record.value:.3f}"
