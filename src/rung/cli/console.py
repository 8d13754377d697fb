"""What a person sees: progress of long work on standard error, results on standard output.

One object is both the `Progress` of the lower floors and the `Display` of training. On a terminal it draws bars and a
live panel; into a file or a pipe it writes a plain line now and then; with --json it is silent unless standard error is
a terminal. Standard output carries results only, so it can be piped on.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rung.cli.terminal import without_commands
from rung.data.report import human_bytes
from rung.progress import Highlighted, SilentProgress

if TYPE_CHECKING:
    from rung.training.meter import StepReport

_PLAIN_EVERY = 10.0  # seconds between two lines of a log
_REFRESH_PER_SECOND = 2  # each redraw takes the interpreter for some milliseconds from the training it shows
_BLOCKS = "▁▂▃▄▅▆▇█"


class Watcher(Protocol):
    """Shows progress and training; to be entered while work goes on."""

    def task(self, label: str, total: float | None, unit: str) -> AbstractContextManager[Callable[[float], None]]: ...

    def say(self, message: str) -> None: ...

    def update(self, report: StepReport) -> None: ...

    def validated(self, step: int, metrics: dict[str, float]) -> None: ...


class _SafeConsole(Console):
    """A console whose terminal takes no commands from what models and files say."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(without_commands(text) if self.is_terminal else text, **options)


def results() -> Console:
    """The console for results, on standard output."""
    return _SafeConsole(highlight=False, soft_wrap=not sys.stdout.isatty(), quiet=not _speaks())


def print_json(result: dict[str, Any]) -> None:
    """Write `result` as one line: the last line of standard output."""
    if not _speaks():
        return
    sys.stdout.write(json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def _speaks() -> bool:
    """Whether this process talks to the user: of several that train together under torchrun, only rank 0 does."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def watching(*, as_json: bool) -> Iterator[Watcher]:
    """Yield what shows progress here: live on a terminal, lines in a log, nothing for a machine or a rank above 0."""
    console = _SafeConsole(stderr=True, highlight=False)
    if not _speaks() or (as_json and not console.is_terminal):
        yield _Silent()
    elif console.is_terminal:
        screen = _Screen(console)
        with screen.live:
            yield screen
    else:
        yield _Log()


class _Silent(SilentProgress):
    def update(self, report: StepReport) -> None:
        pass

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        pass


class _Log:
    """Plain lines with the time since the start, for files, pipes and continuous integration."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._last = self._start

    def say(self, message: str) -> None:
        print(f"[{duration(time.monotonic() - self._start)}] {message}", file=sys.stderr, flush=True)

    @contextmanager
    def task(self, label: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
        begun, done = time.monotonic(), 0.0

        def advance(amount: float) -> None:
            nonlocal done
            done += amount
            if self._due():
                share = f" ({100 * done / total:.0f} %)" if total else ""
                self.say(f"{label}: {quantity(done, unit)}{share}")

        yield advance
        self.say(f"{label}: {_finished(done, unit, time.monotonic() - begun)}")

    def update(self, report: StepReport) -> None:
        if self._due() or report.step in (1, report.steps):
            left = [] if report.seconds_left is None else [f"{duration(report.seconds_left)} left"]
            self.say(", ".join([f"step {report.step:,} of {report.steps:,}", *_facts(report), *left]))

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        name, value = _headline(metrics)
        self.say(f"step {step:,}: validation {value:.4f} {name}")

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self._last < _PLAIN_EVERY:
            return False
        self._last = now
        return True


class _Screen:
    """Bars for what is under way and, once training runs, a panel that stays up to date."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), _Amount(), console=console
        )
        self._report: StepReport | None = None
        self._history: list[float] = []
        self._unit = ""
        self.live = Live(get_renderable=self._render, console=console, refresh_per_second=_REFRESH_PER_SECOND)

    def say(self, message: str) -> None:
        if isinstance(message, Highlighted):
            styled = [
                (without_commands(text), "bold green" if stands_out else "dim") for text, stands_out in message.parts
            ]
            self._console.print(Text.assemble(*styled))
        else:
            self._console.print(message, markup=False)

    @contextmanager
    def task(self, label: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
        bar = self._bars.add_task(escape(label), total=total, unit=unit)
        begun, done = time.monotonic(), 0.0

        def advance(amount: float) -> None:
            nonlocal done
            done += amount
            self._bars.advance(bar, amount)

        try:
            yield advance
        finally:
            self._remove(bar)
        told = _finished(done, unit, time.monotonic() - begun)
        self._console.print(f"[green]✓[/] {escape(label)} [dim]{escape(told)}[/]")

    def _remove(self, bar: TaskID) -> None:
        self._bars.remove_task(bar)

    def update(self, report: StepReport) -> None:
        self._report = report

    def validated(self, step: int, metrics: dict[str, float]) -> None:  # noqa: ARG002
        self._unit, value = _headline(metrics)
        self._history.append(value)

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [self._bars] if self._bars.tasks else []
        if self._report is not None:
            parts.append(self._panel(self._report))
        return Group(*parts)

    def _panel(self, report: StepReport) -> Panel:
        top = Table.grid(padding=(0, 2), expand=True)
        top.add_column(ratio=1)
        top.add_column(justify="right", no_wrap=True)
        left = "" if report.seconds_left is None else f"   {duration(report.seconds_left)} left"
        top.add_row(
            ProgressBar(total=report.steps, completed=report.step),
            f"step {report.step:,} of {report.steps:,}[bold]{left}[/]",
        )
        lines: list[RenderableType] = [top, Text("   ".join(_facts(report)))]
        if self._history:
            last, line = f"{self._history[-1]:.3f}", sparkline(self._history)
            curve = Text.assemble("validation ", (last, "bold"), f" {self._unit}   ", (line, "cyan"))
            if len(self._history) > 1:
                curve.append(f"  from {self._history[0]:.3f}", "dim")
            lines.append(curve)
        return Panel(Group(*lines), title="training", title_align="left", border_style="dim", width=self._width())

    def _width(self) -> int:
        return min(self._console.width, 100)


class _Amount(ProgressColumn):
    """How much is done, in the task's own unit."""

    def render(self, task: Task) -> Text:
        share = f"  {task.percentage:.0f} %" if task.total else ""
        return Text(f"{quantity(task.completed, str(task.fields['unit']))}{share}", style="dim")


def _facts(report: StepReport) -> list[str]:
    """The figures of one step, those that are known, each with its unit."""
    facts = [f"loss {report.loss:.3f}"]
    if report.bits_per_byte is not None:
        facts.append(f"{report.bits_per_byte:.3f} bits/byte")
    if report.targets_per_second is not None:
        facts.append(f"{report.targets_per_second:,.0f} {report.unit}/s")
    if report.peak_share is not None:
        facts.append(f"{100 * report.peak_share:.0f} % of peak")
    facts.append(human_bytes(report.memory))
    if report.skipped:
        facts.append(f"{report.skipped} steps skipped")
    return facts


def _headline(metrics: dict[str, float]) -> tuple[str, float]:
    """The figure of a validation to show, and its unit: bits per byte where they are known, else the loss."""
    if "bits_per_byte" in metrics:
        return "bits/byte", metrics["bits_per_byte"]
    name = "loss" if "loss" in metrics else next(iter(metrics))
    return name, metrics[name]


def _finished(done: float, unit: str, seconds: float) -> str:
    amount = f"{quantity(done, unit)} in " if done else ""
    return f"{amount}{seconds:.1f} s"


def sparkline(values: list[float], width: int = 30) -> str:
    """The last `width` values as blocks between their smallest and largest."""
    shown = values[-width:]
    low, high = min(shown), max(shown)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((value - low) * scale)] for value in shown)


def duration(seconds: float) -> str:
    """`0:07`, `12:30`, `3:05:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def quantity(amount: float, unit: str) -> str:
    """`1.9 MB` for bytes (unit `B`), `12,345 documents` for what is counted."""
    return human_bytes(amount) if unit == "B" else f"{amount:,.0f} {unit}".rstrip()
