"""The `rung` command: its subcommands, and the one place where an error becomes a message and an exit code.

Nothing heavy is imported here or at the top of a command's file, so that `rung --help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from rung.cli import (
    analogy,
    audit,
    chat,
    compare,
    data,
    doctor,
    embed,
    evaluate,
    export,
    generate,
    get,
    learning,
    neighbours,
    plan,
    predict,
    prompt,
    quickstart,
    train,
    tune,
    vectors,
)
from rung.cli.options import AS_JSON, INTERRUPTED, examples
from rung.errors import RungError, RungWarning
from rung.version import __version__


class _Rung(TyperGroup):
    """The group of all commands. Exit codes: 0 fine, 1 failed, 2 wrong usage, 130 interrupted."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _remark
                return super().invoke(ctx)
        except RungError as error:
            _tell(error, as_json=ctx.meta.get(AS_JSON, False))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            typer.echo("\nInterrupted. Nothing half-written is left behind.", err=True)
            raise typer.Exit(INTERRUPTED) from interrupt


def _remark(  # noqa: PLR0917 - what the standard library calls
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Say a warning of Rung's own as a sentence on stderr; show any other as Python does."""
    if issubclass(category, RungWarning):
        typer.echo(f"Remark: {message}", err=True)
    else:
        (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))


def _tell(error: RungError, *, as_json: bool) -> None:
    """Say what was wrong, where, and what to do: on stderr for people, and as the last line of stdout for machines."""
    label = "Error" if "NO_COLOR" in os.environ else typer.style("Error", fg="red", bold=True)
    typer.echo(f"{label}: {error}", err=True)
    if as_json:
        kind = type(error).__name__
        told = {"type": kind, "problem": error.problem, "where": error.where, "hint": error.hint}
        typer.echo(json.dumps({"error": told}, ensure_ascii=False))


app = typer.Typer(
    cls=_Rung,
    rich_markup_mode=None,  # rich help doubles the time of `rung --help` (ARCHITECTURE.md, "Start-up")
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples(
        "rung quickstart",
        "rung compare tickets.csv --target label --minutes 10",
        "rung train my_texts/ --minutes 30",
        'rung generate runs/my_texts "Once upon" --temperature 0.8',
    ),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rung {__version__}")
        raise typer.Exit


@app.callback()
def rung(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Climb only as high as you need: labelled text in, a verdict out; raw text in, a language model out."""


for command in (
    quickstart,
    compare,
    predict,
    prompt,
    train,
    get,
    tune,
    plan,
    generate,
    chat,
    embed,
    evaluate,
    learning,
    neighbours,
    analogy,
    vectors,
    audit,
    export,
):
    command.add_to(app)
app.add_typer(data.app, name="data")
doctor.add_to(app)


def main() -> None:
    """Run the command line."""
    app(prog_name="rung")
