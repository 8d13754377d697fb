"""What a command has to tell in the end, for people: plans, trained models, measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rung.cli.console import duration, print_json, results
from rung.cli.options import INTERRUPTED
from rung.cli.terminal import without_commands
from rung.runfolder import read_header
from rung.tasks.tuning.table import TUNED_FOR

if TYPE_CHECKING:
    from rung.records import Record
    from rung.tasks.run import TrainSummary


class Planned(Protocol):
    """What training would do."""

    def lines(self) -> list[str]:
        """The plan for people."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The same for machines."""
        ...


class Trained(Protocol):
    """How a training command went."""

    @property
    def run(self) -> Path:
        """The run folder."""
        ...

    @property
    def ended(self) -> str:
        """`finished`, `stopped early` or `interrupted`."""
        ...

    def lines(self) -> list[str]:
        """What was trained and how good it is, for people."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The same for machines."""
        ...


def show_plan(plan: Planned, *, as_json: bool) -> None:
    """The plan, line by line or as JSON."""
    if as_json:
        print_json(plan.to_json())
        return
    console = results()
    for line in plan.lines():
        console.print(line, markup=False)


def end_training(summary: TrainSummary | Trained, show: Callable[[Any], None], *, as_json: bool) -> None:
    """Tell how training ended, by `show` to people; the exit code of an interrupted run is that of such a command."""
    if as_json:
        print_json(summary.to_json())
    else:
        show(summary)
    if summary.ended == "interrupted":
        raise typer.Exit(INTERRUPTED)


def show_training(summary: TrainSummary, *, train_on: str = "rung train --extend {run} --minutes 10") -> None:
    """What was trained, how good it is beside general compressors, a sample, the folder and what to do next.

    `train_on` is the command that trains such a run on.
    """
    console = results()
    console.print()
    rate = f"{summary.tokens_per_second:,.0f} tokens/s"
    steps = f"{summary.steps:,} steps, " if summary.steps else ""  # what is counted has none
    console.print(
        f"[bold]{summary.parameters:,} parameters[/], {steps}{summary.tokens:,} tokens "
        f"({summary.epochs:.1f} times the text) at {rate}; {duration(summary.seconds)} in all: {summary.ended}."
    )
    if summary.bits_per_byte is not None:
        show_bits_per_byte(console, summary.bits_per_byte, summary.floors, of="held-out text")
    if summary.sample:
        console.print("\n[bold]It writes[/]")
        console.print(Padding(Text(without_commands(summary.sample.strip()), style="italic"), (0, 2)))
    is_known = (summary.run / "generation_config.json").is_file()  # written for transformers' architectures alone
    console.print(
        f"\nThe run is in [bold]{summary.run}[/]{', a folder that transformers opens too' if is_known else ''}."
    )
    finished = summary.bits_per_byte is not None
    next_commands(console, summary.run, finished=finished, train_on=train_on.format(run=summary.run))


def show_trained(summary: Trained) -> None:
    """What was trained, line by line, and where it is."""
    console = results()
    console.print()
    for line in summary.lines():
        console.print(line, markup=False)
    console.print(f"\nThe run is in [bold]{summary.run}[/].")
    if summary.ended == "interrupted":
        command = "tune" if TUNED_FOR in read_header(summary.run) else "train"
        console.print(f"Go on with: [cyan]rung {command} --resume {summary.run}[/]")


def show_bits_per_byte(console: Console, measured: Record, floors: Sequence[Record], *, of: str) -> None:
    """Bits per byte of a text, beside what gzip, bzip2 and xz make of the same text; shorter bars are better."""
    console.print(f"\n[bold]Bits per byte of {of}[/] [dim]({measured.n:,} documents; fewer is better)[/]")
    rows = sorted(
        [(measured, "this model"), *((floor, floor.name) for floor in floors)], key=lambda row: row[0].value or 0
    )
    most = max(record.value or 0 for record, _ in rows)
    table = Table.grid(padding=(0, 2))
    for record, name in rows:
        if record.value is None:
            table.add_row("", name, "", f"not measured: {record.not_measured}")
            continue
        bar = Text("━" * max(1, round(30 * record.value / most)), "cyan" if record is measured else "dim")
        spread = f"[{record.interval.low:.3f}, {record.interval.high:.3f}]" if record.interval else ""
        table.add_row(
            "", Text(name, "bold" if record is measured else ""), f"{record.value:.3f}", bar, Text(spread, "dim")
        )
    console.print(table)


def next_commands(console: Console, run: Path, *, finished: bool, train_on: str) -> None:
    """What one would type next."""
    commands = (
        [
            (f'rung generate {run} "Once upon"', "let it write"),
            (f"rung eval {run} TEXT", "measure it on a text of yours"),
            *([(train_on, "train it on")] if (run / "checkpoints").is_dir() else []),
        ]
        if finished
        else [(f"rung train --resume {run}", "go on where it stopped")]
    )
    table = Table.grid(padding=(0, 2))
    for command, purpose in commands:
        table.add_row("", Text(command, "cyan"), Text(purpose, "dim"))
    console.print("\n[bold]Next[/]")
    console.print(table)
