"""`rung data`: what training would make of these files, and what is kept of them between commands."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rung.cli.options import Json, examples

_EXAMPLES = examples(
    "rung data check my_texts/",
    "rung data check mail.jsonl.gz --json",
)
_CACHE_EXAMPLES = examples("rung data cache", "rung data cache --clear")

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


@app.command("cache", epilog=_CACHE_EXAMPLES, short_help="Show or clear what is kept of prepared text.")
def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove all prepared text; not while another command uses it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how much prepared text is kept between commands, or remove it: it is made again when it is needed.

    What was not used for 60 days goes by itself. Answers of models that were asked are kept: they were paid for.
    """
    from rung.cli.console import print_json, results
    from rung.data.cache import ANSWERS, cache_folder, cache_use, remove_prepared
    from rung.data.report import human_bytes

    folder = cache_folder()
    use = remove_prepared(folder) if clear else cache_use(folder)
    if as_json:
        print_json({"folder": str(folder), **asdict(use)})
        return
    console = results()
    console.print(f"{folder}: {human_bytes(use.prepared_bytes)} of prepared text", markup=False)
    if clear:
        console.print(f"{human_bytes(use.removed_bytes)} removed")
    if use.answer_bytes:
        answers = f"{folder / ANSWERS}: {human_bytes(use.answer_bytes)} of answers of models that were asked"
        console.print(answers, markup=False)
