"""`rung predict`: labels from a fitted rung, for a few texts or for a table of any size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rung.cli.options import Json, examples, exclusive, spelled
from rung.errors import UsageError

if TYPE_CHECKING:
    from rung.tasks.classification.classifier import Prediction

_EXAMPLES = examples(
    'rung predict runs/compare-tickets/rungs/linear "My invoice is wrong"',
    "rung predict runs/compare-tickets/rungs/lstm --input new.csv --output labelled.parquet",
    'rung predict runs/compare-tickets/rungs/linear "My invoice is wrong" --json',
    'rung predict runs/en-de "A dog runs." --best 3',
    'rung predict models/t5-small "A long text ..." --prefix "summarize: "',
    "rung predict runs/en-de --input new.txt --output translated.txt",
    'rung predict runs/my_bert "Paris is the [MASK] of France"',
    'rung predict models/roberta-base "Paris is the <mask> of France"',
    'rung predict runs/names "Ada Lovelace lived in London"',
)
_SHOWN = 5


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("predict", epilog=_EXAMPLES, short_help="Label texts or a whole table with a rung.")(predict)


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a rung or a network, or a base's name.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT", show_default=False, help="Texts.")] = None,
    *,
    source: Annotated[
        Path | None, typer.Option("--input", "-i", metavar="TABLE", help="A table: .csv .tsv .jsonl .parquet.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="TABLE", help="The same table with predictions.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="COL", help="The column of text.  [default: as when fitted]")
    ] = None,
    beams: Annotated[
        int | None, typer.Option("--beams", metavar="N", min=1, help="Beams to search with, when rewriting.")
    ] = None,
    best: Annotated[
        int | None, typer.Option("--best", metavar="N", min=1, help="How many ways to rewrite a text or fill a gap.")
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option("--prefix", metavar="TEXT", show_default=False, help="Put before every text to rewrite."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Label texts, or every row of a table, with a fitted rung; rewrite them (translate, sum up) or fill their gaps.

    A table keeps all its columns, rows and their order; a row that cannot be labelled stays, with the reason in the
    column `error`.
    """
    exclusive(TEXT=texts, input=source)
    from rung.tasks.bases import find_model
    from rung.tasks.loading import is_masked_language_model, is_rewriter, is_tagger

    run = find_model(run)
    if is_rewriter(run):
        from rung.cli.rewriting import rewrite

        how: dict[str, Any] = {"columns": text, "beams": beams, "best": best, "prefix": prefix}
        rewrite(run, texts or [], source, output, **how, as_json=as_json)
        return
    if prefix is not None:
        raise UsageError("--prefix is for networks that rewrite texts", hint="leave it out")
    if is_masked_language_model(run):
        from rung.cli.masked import fill_masks

        if names := spelled({"input": source, "output": output, "text": text, "beams": beams}):
            raise UsageError(f"{', '.join(names)} means nothing when gaps are filled", hint="leave it out")
        fill_masks(run, texts or [], best=best, as_json=as_json)
        return
    if is_tagger(run):
        from rung.cli.tagging import tag_texts

        if names := spelled({"input": source, "output": output, "text": text, "beams": beams, "best": best}):
            raise UsageError(f"{', '.join(names)} means nothing when words are tagged", hint="leave it out")
        tag_texts(run, texts or [], as_json=as_json)
        return
    if beams or best:
        raise UsageError("--beams and --best are for networks that rewrite texts", hint="leave them out")
    if source is None:
        if not texts:
            raise UsageError("there is nothing to label", hint="give a text, or a table: --input new.csv")
        if output is not None:
            raise UsageError("--output is for a table", hint="name the table with --input")
        _label_texts(run, texts, as_json=as_json)
    elif output is None:
        raise UsageError("where the labelled table goes is missing", hint="give --output labelled.parquet")
    else:
        _label_table(run, source, output, text, as_json=as_json)


def _label_texts(run: Path, texts: list[str], *, as_json: bool) -> None:
    from rung.tasks.classification.classifier import load_classifier

    found = load_classifier(run).classify(texts)
    if as_json:
        from rung.cli.console import print_json

        predictions = [{"label": one.label, "probabilities": one.probabilities} for one in found]
        print_json({"run": str(run), "predictions": predictions})
        return
    for sentence, one in zip(texts, found, strict=True):
        if len(texts) > 1:
            typer.echo(sentence)
        for line in _lines(one):
            typer.echo(line)


def _lines(one: Prediction) -> list[str]:
    """The most probable labels, the answer first."""
    if one.label is None:
        return ["no answer could be read"]
    ranked = sorted(one.probabilities.items(), key=lambda entry: -entry[1])[:_SHOWN]
    width = max(len(label) for label, _ in ranked)
    return [f"{label:<{width}}  {100 * probability:5.1f} %" for label, probability in ranked]


def _label_table(run: Path, source: Path, output: Path, text: list[str] | None, *, as_json: bool) -> None:
    from rung.cli.console import print_json, watching
    from rung.tasks.classification.using import predict_table

    with watching(as_json=as_json) as watcher:
        done = predict_table(run, source, output, text_columns=text, progress=watcher)
    bad = sum(done.problems.values())
    if as_json:
        print_json({"output": str(output), "rows": done.rows, "not_labelled": dict(done.problems)})
        return
    typer.echo(f"{done.rows:,} rows in {output}, {bad:,} of them without a prediction")
    for reason, count in done.problems.most_common():
        typer.echo(f"  {count:,}: {reason}")
