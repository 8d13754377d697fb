"""`rung compare TEXT`: every kind of language model on raw text, and what both kinds of comparison share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from rung.cli.options import INTERRUPTED, command_started, spelled
from rung.errors import UsageError


def compare_text(
    texts: Sequence[Path],
    *,
    out: Path | None,
    resume: bool,
    test: Sequence[Path] | None,
    valid: Sequence[Path] | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Compare language models, show the ladder, say where the report lies. `settings`: see `LadderSettings`."""
    from rung.cli.console import print_json, results, watching
    from rung.comparison.language_models.command import compare_texts
    from rung.comparison.language_models.report import summary_lines

    out = out or default_out(texts, resume=resume)
    try:
        with watching(as_json=as_json) as watcher:
            found = compare_texts(
                texts,
                out=out,
                valid=valid or (),
                test=test or (),
                resume=resume,
                command=shlex.join(["rung", *sys.argv[1:]]),
                started=command_started(),
                progress=watcher,
                **settings,
            )
    except KeyboardInterrupt as interrupt:
        raise interrupted(out) from interrupt
    if as_json:
        print_json({"out": str(out), **found.model_dump(mode="json")})
        return
    console = results()
    for line in summary_lines(found):
        console.print(line, markup=False)
    enough = out / found.result(found.verdict.enough).folder
    console.print(f"\nreport   {out / 'report.html'}", markup=False)
    console.print(f'use      rung generate {shlex.quote(str(enough))} "Once upon a time"', markup=False)


def default_out(data: Sequence[Path], *, resume: bool) -> Path:
    """`runs/compare-NAME`, after the first file; a new name unless a comparison goes on."""
    from rung.tasks.run import free_folder

    name = f"compare-{data[0].resolve().name.split('.')[0] or 'data'}"
    return Path("runs") / name if resume else free_folder(name)


def interrupted(out: Path) -> typer.Exit:
    """Say how to go on, and end as Ctrl-C does."""
    typer.echo(
        f"\nInterrupted. What is finished is kept: give the same command again with --resume --out {out}", err=True
    )
    return typer.Exit(INTERRUPTED)


def refuse(given: Mapping[str, object], data: str, hint: str) -> None:
    """Raise UsageError when an option was given that means nothing for this kind of data."""
    if names := spelled(dict(given)):
        raise UsageError(f"{', '.join(names)} cannot be given for {data}", hint=hint)
