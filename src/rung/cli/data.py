"""`rung data check`: what training would make of these files, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rung.cli.options import Json, examples

_EXAMPLES = examples(
    "rung data check my_texts/",
    "rung data check mail.jsonl.gz --json",
)

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Look at text before training on it.")


@app.command("check", epilog=_EXAMPLES, short_help="Read, clean, deduplicate and split; report what was found.")
def check(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files or folders, as for `rung train`.")],
    as_json: Json = False,
) -> None:
    """Read, clean, deduplicate and split text as training would, and report what was found.

    Every document that is left out is listed in rejected.jsonl with its file, place and reason. Nothing is lost: what
    was prepared is kept, and `rung train` on the same text goes on from there.
    """
    from rung.cli.console import print_json, results, watching
    from rung.recipe import Recipe
    from rung.tasks.text_preparation import read_corpus

    recipe = Recipe().with_overrides({"text.files": [str(path) for path in paths]})
    with watching(as_json=as_json) as watcher:
        report = read_corpus(recipe, watcher).report
    if as_json:
        print_json(report.to_json())
        return
    console = results()
    for line in report.lines():
        console.print(line, markup=False)
