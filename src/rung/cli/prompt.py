"""`rung prompt`: what a language model says without tuning, with more and more examples in its prompt."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from rung.cli import options
from rung.cli.threads import settle_threads

_EXAMPLES = options.examples(
    "rung prompt smollm2 tickets.csv --target label",
    "rung prompt smollm2 train.jsonl --test test.jsonl --target label --shots 0,4,8 --limit 200 --chat",
    "rung prompt runs/mine tickets.csv --target label --by generation",
    "rung prompt smollm2 tickets.csv --target label --minutes 20     # as many items as there is time for",
    "rung prompt http://127.0.0.1:8000/v1#MODEL tickets.csv --target label --limit 100",
)


class By(StrEnum):
    """How an answer becomes a label."""

    SCORING = "scoring"
    GENERATION = "generation"


class Precision(StrEnum):
    """What a local model computes in."""

    FP32 = "fp32"
    BF16 = "bf16"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("prompt", epilog=_EXAMPLES, short_help="Ask a model without tuning it: accuracy by examples shown.")(
        prompt
    )


def prompt(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder, run, .gguf, known name, or an endpoint's URL.")
    ],
    data: Annotated[list[Path], typer.Argument(metavar="DATA", help="Labelled tables: .csv .tsv .jsonl .parquet.")],
    *,
    target: Annotated[
        str | None, typer.Option("--target", "-t", metavar="COL", help="The column of labels.  [default: guessed]")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="COL", help="A column of text; repeatable.  [default: guessed]"),
    ] = None,
    test: Annotated[list[Path] | None, typer.Option("--test", metavar="DATA", help="Test items of their own.")] = None,
    shots: Annotated[str, typer.Option("--shots", metavar="A,B,...", help="Numbers of examples.")] = "0,1,2,4,8",
    draws: Annotated[int, typer.Option("--draws", metavar="N", help="Draws of examples for each number.")] = 5,
    templates: Annotated[int, typer.Option("--templates", metavar="N", help="Wordings of the question, 1 to 3.")] = 3,
    by: Annotated[
        By | None,
        typer.Option("--by", help="The likeliest label, or what is written.  [default: scoring; endpoint: generation]"),
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask through the model's chat template.")] = False,
    precision: Annotated[
        Precision, typer.Option("--precision", help="bf16 scores faster; labels may differ where two are close.")
    ] = Precision.FP32,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", "-m", metavar="M", help="Ask about as many test items as this is enough for."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Ask about N test items.  [default: all]")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the items and the draws.")] = 0,
    price: Annotated[
        str | None, typer.Option("--price", metavar="IN/OUT", help="Of an endpoint, per million tokens.")
    ] = None,
    spend_at_most: Annotated[
        float | None, typer.Option("--spend-at-most", metavar="SUM", help="Stop before this is spent.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="The folder.  [default: runs/prompt- and the data's name]"),
    ] = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Prompt a language model about labelled data: no example, then more and more of them.

    Every template is tried with every draw of examples on the same test items. The table gives accuracy by number of
    examples with intervals over templates, draws and items, beside chance and what it cost in tokens. Answers are kept:
    after Ctrl-C, the same command goes on where it was.
    """
    settle_threads()
    import torch

    from rung.cli.console import print_json, results, watching
    from rung.comparison.prompting import prompt_curves, summary_lines
    from rung.tasks.prompting.costs import Price
    from rung.tasks.prompting.curves import CurveWish, parse_shots
    from rung.tasks.run import free_folder

    if threads is not None:
        torch.set_num_threads(threads)
    wish = CurveWish(parse_shots(shots), draws, templates, limit, seed, minutes)
    out = out or free_folder(f"prompt-{data[0].resolve().name.split('.')[0] or 'data'}")
    asked: dict[str, Any] = {
        "by": None if by is None else by.value,
        "chat": chat,
        "bf16": precision is Precision.BF16,
        "price": None if price is None else Price.parse(price),
        "max_cost": spend_at_most,
    }
    with watching(as_json=as_json) as watcher:
        command = shlex.join(["rung", *sys.argv[1:]])
        try:
            found = prompt_curves(
                model, data, out=out, target=target, text=text or None, test=test or (), wish=wish, command=command,
                threads=threads or 1, progress=watcher, **asked,
            )  # fmt: skip
        except KeyboardInterrupt:
            typer.echo(f"\nThe answers so far are kept. Go on with: {command}", err=True)
            raise
    if as_json:
        print_json({"out": str(out), **found.to_json()})
        return
    console = results()
    for line in summary_lines(found):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"\nreport   {out / 'report.html'}", markup=False)
