"""What `rung compare` does once its options are read: raw text, pairs of texts, and what all kinds share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rung.cli.options import INTERRUPTED, command_started, spelled
from rung.errors import UsageError

if TYPE_CHECKING:
    from rung.comparison.result import Comparison, RungResult

_POINT = 0.01


def compare_text(texts: Sequence[Path], *, out: Path | None, resume: bool, as_json: bool, **wishes: Any) -> None:
    """Compare language models, show the ladder, say where the report lies. `wishes`: see `compare_texts`."""
    from rung.cli.console import print_json, results, watching
    from rung.comparison.language_models.command import compare_texts
    from rung.comparison.language_models.report import summary_lines

    out = out or default_out(texts, resume=resume)
    with watching(as_json=as_json) as watcher, saying_how_to_go_on(out):
        found = compare_texts(texts, **_by_this_command(out, resume, watcher), **wishes)
    if as_json:
        print_json({"out": str(out), **found.model_dump(mode="json")})
        return
    console = results()
    for line in summary_lines(found):
        console.print(line, markup=False)
    enough = out / found.result(found.verdict.enough).folder
    console.print(f"\nreport   {out / 'report.html'}", markup=False)
    console.print(f'use      rung generate {shlex.quote(str(enough))} "Once upon a time"', markup=False)


def compare_items(
    run: Callable[..., Comparison],
    data: Sequence[Path],
    *,
    out: Path | None,
    resume: bool,
    as_json: bool,
    minutes: float | None,
    margin: float | None,
    **wishes: Any,
) -> None:
    """Compare rungs on labelled items or pairs by `run`, the Python function for them, and show the ladder."""
    from rung.cli.console import watching

    out = out or default_out(data, resume=resume)
    with watching(as_json=as_json) as watcher, saying_how_to_go_on(out):
        found = run(
            data,
            **_by_this_command(out, resume, watcher),
            minutes=10.0 if minutes is None else minutes,
            margin=_POINT * (1.0 if margin is None else margin),
            **wishes,
        )
    show_comparison(found, out, as_json=as_json)


def _by_this_command(out: Path, resume: bool, watcher: Any) -> dict[str, Any]:
    """What every comparison is told of the command that it is made by."""
    command = shlex.join(["rung", *sys.argv[1:]])
    return {
        "out": out, "resume": resume, "command": command, "started": command_started(), "progress": watcher,
    }  # fmt: skip


def show_comparison(found: Comparison, out: Path, *, as_json: bool) -> None:
    """The verdict and the ladder, where the report lies, and what to do with the rung that is advised."""
    from rung.cli.console import print_json, results
    from rung.comparison.report import summary_lines

    if as_json:
        print_json({"out": str(out), **found.model_dump(mode="json")})
        return
    console = results()
    for line in summary_lines(found):
        console.print(line, markup=False)
    console.print(f"\nreport   {out / 'report.html'}", markup=False)
    console.print(f'use      rung predict {shlex.quote(str(out / _to_use(found).folder))} "some text"', markup=False)


def _to_use(found: Comparison) -> RungResult:
    """The rung that the verdict advises today: the small one, unless it is known to be worse."""
    verdict = found.verdict
    small_is_worse = verdict.chosen is None or verdict.answer in ("yes", "more labels")
    return found.result(verdict.reference if small_is_worse else str(verdict.chosen))


def default_out(data: Sequence[Path], *, resume: bool) -> Path:
    """`runs/compare-NAME`, after the first file; a new name unless a comparison goes on."""
    from rung.tasks.run import free_folder

    name = f"compare-{data[0].resolve().name.split('.')[0] or 'data'}"
    return Path("runs") / name if resume else free_folder(name)


@contextmanager
def saying_how_to_go_on(out: Path) -> Iterator[None]:
    """Let Ctrl-C end the command as it does others, after saying that what is finished is kept."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        typer.echo(
            f"\nInterrupted. What is finished is kept: give the same command again with --resume --out {out}", err=True
        )
        raise typer.Exit(INTERRUPTED) from interrupt


def refuse(given: Mapping[str, object], data: str, hint: str) -> None:
    """Raise UsageError when an option was given that means nothing for this kind of data."""
    if names := spelled(dict(given)):
        raise UsageError(f"{', '.join(names)} cannot be given for {data}", hint=hint)
