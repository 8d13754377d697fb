"""`rung compare`: labelled data or raw text in, a verdict out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rung.cli.comparing import compare_items, compare_text, refuse
from rung.cli.options import Json, Threads, examples
from rung.cli.threads import settle_threads
from rung.errors import UsageError

if TYPE_CHECKING:
    from rung.tasks.task import Rung

_EXAMPLES = examples(
    "rung compare tickets.csv --target label --minutes 10",
    "rung compare train.csv --test test.csv --target topic --text title --text body",
    "rung compare tickets.csv --rungs naive-bayes,linear,lstm,encoder --margin 2",
    "rung compare tickets.csv --llm http://127.0.0.1:8000/v1#my-model --price 0.15/0.60",
    "rung compare tickets.csv --rungs linear --base minilm --base smollm2     # tuned, frozen, prompted",
    "rung compare tickets.csv --rungs linear,folder:models/my_bert --reference folder:models/my_bert",
    "rung compare tickets.csv --rungs cnn,lstm --vectors runs/my_vectors",
    "rung compare tickets.csv --resume                      # after Ctrl-C or a crash",
    "rung compare my_texts/ --minutes 20                    # raw text: from n-grams to a Transformer",
    "rung compare pairs.csv --task translate --source en --target de --minutes 30",
    "rung compare book.txt --rungs ngram,rnn,lstm --parameters 1000000",
)


class TaskName(StrEnum):
    """What is learned from the data."""

    CLASSIFY = "classify"
    TEXT = "text"
    TRANSLATE = "translate"
    REWRITE = "rewrite"


class Split(StrEnum):
    """How the items are cut into train, validation and test."""

    STRATIFIED = "stratified"
    GROUPED = "grouped"
    TIME = "time"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("compare", epilog=_EXAMPLES, short_help="Train every rung on labelled data; which is enough?")(compare)


def compare(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA", help="Labelled tables (.csv .tsv .jsonl .parquet), or raw text: files, folders."
        ),
    ],
    *,
    task: Annotated[
        TaskName | None,
        typer.Option("--task", help="What to learn.  [default: classify tables, text of all else]"),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", metavar="COL", help="The column of labels.  [default: guessed]")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="COL", help="A column of text; repeatable.  [default: guessed]"),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="COL", help="The column to translate; --target: into what.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", "-m", metavar="M", help="The whole command's time.  [default: 10]"),
    ] = None,
    rungs: Annotated[
        str | None, typer.Option("--rungs", metavar="A,B,...", help="Rungs to climb.  [default: all that there are]")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="RUNG", help='What "an LLM" means here.  [default: best pretrained model]'),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            metavar="P",
            help="Points (raw text: bits per byte) worse that are still as good.  "
            "[default: 1 point, 0.02 bits per byte]",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="accuracy, macro_f1 or mcc; of translations bleu or chrf.  [default: the first]"),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", metavar="N", help="Fits of each rung that involves chance.  [default: 3 for labels, else 1]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Equal plan and seed: equal report.")] = 0,
    curves: Annotated[
        str | None, typer.Option("--curves", metavar="A,B,...", help="Rungs with a learning curve.  [default: all]")
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", metavar="COL", help="Show gaps between groups; keep many groups together.")
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", metavar="COL", help="Split by time: the latest rows test.")
    ] = None,
    split: Annotated[
        Split | None, typer.Option("--split", help="How to cut test items off.  [default: see --group and --time]")
    ] = None,
    test: Annotated[list[Path] | None, typer.Option("--test", metavar="DATA", help="Test items of their own.")] = None,
    valid: Annotated[list[Path] | None, typer.Option("--valid", metavar="DATA", help="Validation items.")] = None,
    unlabelled: Annotated[
        list[Path] | None, typer.Option("--unlabelled", metavar="TEXT", help="Raw text for pretraining; repeatable.")
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option("--vectors", metavar="PATH", help="Word vectors to start networks over words from: run or file."),
    ] = None,
    freeze_vectors: Annotated[bool, typer.Option("--freeze-vectors", help="Do not train these vectors on.")] = False,
    base: Annotated[
        list[str] | None,
        typer.Option(
            "--base",
            metavar="BASE",
            help="A pretrained model to tune and to prompt: folder, .gguf, minilm, smollm2; repeatable.  "
            "[default: those installed, unless --rungs is given]",
        ),
    ] = None,
    llm: Annotated[
        list[str] | None,
        typer.Option("--llm", metavar="URL|BASE", help="A model to prompt: endpoint, folder, .gguf or name."),
    ] = None,
    price: Annotated[
        str | None, typer.Option("--price", metavar="IN/OUT", help="Per million tokens, for cost per 1,000 items.")
    ] = None,
    spend_at_most: Annotated[
        float | None,
        typer.Option("--spend-at-most", metavar="SUM", help="Stop asking an endpoint before this is spent."),
    ] = None,
    parameters: Annotated[
        int | None, typer.Option("--parameters", metavar="N", help="Raw text: every network of about this size.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", help="Raw text: so many steps each, instead of minutes.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Raw text: bpe, word, character or byte.  [default: bpe]")
    ] = None,
    watts_per_core: Annotated[
        float | None,
        typer.Option("--watts-per-core", metavar="W", help="Estimate energy where no counter can be read."),
    ] = None,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Go on although over 5 % of the test items are in training.")
    ] = False,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="DIR", help="Repeat with the plans of that comparison: no clock.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="The folder.  [default: runs/compare- and the name]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted comparison in --out.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train every rung of the ladder on your labelled text, and learn which is enough.

    From counting words to tuned networks (and a large language model, if you name one): same items, same splits, paired
    statistics. Ends with a verdict, a report to open, and a folder for every rung, ready for `rung predict`. Of raw
    text the rungs are language models, from n-grams to a Transformer, compared in bits per byte.
    """
    settle_threads()
    of_labels: dict[str, Any] = {
        "text": text, "reference": reference, "curves": curves, "group": group, "time": time, "split": split,
        "unlabelled": unlabelled, "vectors": vectors, "freeze_vectors": freeze_vectors, "base": base, "llm": llm,
        "price": price, "spend_at_most": spend_at_most, "allow_leaks": allow_leaks, "plan": plan,
    }  # fmt: skip
    of_text: dict[str, Any] = {"parameters": parameters, "steps": steps, "tokenizer": tokenizer}
    common: dict[str, Any] = {
        "minutes": minutes, "rungs": _names(rungs), "seed": seed, "test": test or (), "valid": valid or (),
        "out": out, "resume": resume, "threads": threads, "as_json": as_json,
    }  # fmt: skip
    if task in (TaskName.TRANSLATE, TaskName.REWRITE):
        refuse(of_labels | of_text, f"--task {task.value}", "see rung compare --help")
        from rung.comparison.pairs_command import compare_pairs

        compare_items(
            compare_pairs, data, source=source, target=target, metric=metric or "bleu", margin=margin,
            seeds=1 if seeds is None else seeds, watts_per_core=watts_per_core, **common,
        )  # fmt: skip
    elif task is TaskName.TEXT or (task is None and target is None and not any(map(_is_table, data))):
        others: dict[str, Any] = {
            "source": source,
            "target": target,
            "metric": metric,
            "watts_per_core": watts_per_core,
        }
        refuse(of_labels | others, "raw text", "these belong to labelled data: rung compare DATA --task classify")
        compare_text(data, margin=margin, seeds=seeds, **of_text, **common)
    else:
        refuse(of_text, "labelled data", "these belong to raw text: rung compare TEXT --task text")
        refuse({"source": source}, "labelled data", "this belongs to pairs of texts: --task translate")
        from rung.comparison.command import compare as compare_labels

        settings: dict[str, Any] = {"reference": reference, "curves": _names(curves), "watts_per_core": watts_per_core}
        compare_items(
            compare_labels, data, target=target, text=text or None, group=group, time=time, unlabelled=unlabelled or (),
            split=None if split is None else split.value, allow_leaks=allow_leaks,
            more_rungs=_prompted(llm or (), price, spend_at_most), vectors=vectors, freeze_vectors=freeze_vectors,
            bases=base, plan=plan, margin=margin, seeds=3 if seeds is None else seeds, metric=metric or "accuracy",
            **settings, **common,
        )  # fmt: skip


_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def _is_table(path: Path) -> bool:
    """Whether a file is a table by its name; .jsonl of raw text needs --task text."""
    return any(suffix.lower() in _TABLES for suffix in path.suffixes)


def _names(listed: str | None) -> tuple[str, ...] | None:
    return None if listed is None else tuple(name.strip() for name in listed.split(",") if name.strip())


def _prompted(targets: list[str] | tuple[str, ...], price: str | None, spend_at_most: float | None) -> list[Rung]:
    """A rung for each model to prompt."""
    if not targets:
        if price is not None or spend_at_most is not None:
            raise UsageError("--price and --spend-at-most are for a model to prompt", hint="name one with --llm")
        return []
    from rung.tasks.bases import find_model
    from rung.tasks.prompting.costs import Price
    from rung.tasks.prompting.prompted import PromptedRung

    places = [target if "://" in target else str(find_model(target)) for target in targets]
    parsed = None if price is None else Price.parse(price)
    names = ["prompted"] if len(targets) == 1 else [f"prompted-{number}" for number in range(1, len(targets) + 1)]
    return [
        PromptedRung(place, name=name, price=parsed, max_cost=spend_at_most, called=target)
        for target, place, name in zip(targets, places, names, strict=True)
    ]
