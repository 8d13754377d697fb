"""`rung compare`: labelled data in, a verdict out."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rung.cli.options import INTERRUPTED, Json, Threads, command_started, examples
from rung.cli.threads import settle_threads
from rung.errors import UsageError

if TYPE_CHECKING:
    from rung.comparison.result import Comparison, RungResult
    from rung.tasks.task import Rung

_EXAMPLES = examples(
    "rung compare tickets.csv --target label --minutes 10",
    "rung compare train.csv --test test.csv --target topic --text title --text body",
    "rung compare tickets.csv --rungs naive-bayes,linear,lstm,encoder --margin 2",
    "rung compare tickets.csv --llm http://127.0.0.1:8000/v1#my-model --price 0.15/0.60",
    "rung compare tickets.csv --rungs linear,folder:models/minilm --reference folder:models/minilm",
    "rung compare tickets.csv --resume                      # after Ctrl-C or a crash",
)
_POINT = 0.01


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
        list[Path], typer.Argument(metavar="DATA", help="Tables: .csv .tsv .jsonl .parquet, plain or .gz .zst .xz.")
    ],
    *,
    target: Annotated[
        str | None, typer.Option("--target", "-t", metavar="COL", help="The column of labels.  [default: guessed]")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="COL", help="A column of text; repeatable.  [default: guessed]"),
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", "-m", metavar="M", help="The whole command's time.")] = 10.0,
    rungs: Annotated[
        str | None, typer.Option("--rungs", metavar="A,B,...", help="Rungs to climb.  [default: all that there are]")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="RUNG", help='What "an LLM" means here.  [default: best pretrained model]'),
    ] = None,
    margin: Annotated[
        float, typer.Option("--margin", metavar="P", help="How many points worse is still as good.")
    ] = 1.0,
    metric: Annotated[str, typer.Option("--metric", help="accuracy, macro_f1 or mcc.")] = "accuracy",
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Fits of each rung that involves chance.")] = 3,
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
    llm: Annotated[
        list[str] | None, typer.Option("--llm", metavar="URL|DIR", help="A model to prompt: endpoint or folder.")
    ] = None,
    price: Annotated[
        str | None, typer.Option("--price", metavar="IN/OUT", help="Per million tokens, for cost per 1,000 items.")
    ] = None,
    spend_at_most: Annotated[
        float | None,
        typer.Option("--spend-at-most", metavar="SUM", help="Stop asking an endpoint before this is spent."),
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
    statistics. Ends with a verdict, a report to open, and a folder for every rung, ready for `rung predict`.
    """
    settle_threads()
    from rung.cli.console import print_json, results, watching
    from rung.comparison.command import compare as run
    from rung.comparison.report import summary_lines
    from rung.tasks.run import free_folder

    if out is None:
        name = f"compare-{data[0].name.split('.')[0] or 'data'}"
        out = Path("runs") / name if resume else free_folder(name)
    try:
        with watching(as_json=as_json) as watcher:
            found = run(
                data,
                out=out,
                target=target,
                text=text or None,
                group=group,
                time=time,
                test=test or (),
                valid=valid or (),
                unlabelled=unlabelled or (),
                split=None if split is None else split.value,
                allow_leaks=allow_leaks,
                more_rungs=_prompted(llm or (), price, spend_at_most),
                plan=plan,
                resume=resume,
                command=shlex.join(["rung", *sys.argv[1:]]),
                started=command_started(),
                progress=watcher,
                minutes=minutes,
                rungs=_names(rungs),
                reference=reference,
                margin=margin * _POINT,
                metric=metric,
                seeds=seeds,
                seed=seed,
                curves=_names(curves),
                watts_per_core=watts_per_core,
                threads=threads,
            )
    except KeyboardInterrupt as interrupt:
        typer.echo(
            f"\nInterrupted. What is finished is kept: give the same command again with --resume --out {out}", err=True
        )
        raise typer.Exit(INTERRUPTED) from interrupt
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


def _names(listed: str | None) -> tuple[str, ...] | None:
    return None if listed is None else tuple(name.strip() for name in listed.split(",") if name.strip())


def _prompted(targets: list[str] | tuple[str, ...], price: str | None, spend_at_most: float | None) -> list[Rung]:
    """A rung for each model to prompt."""
    if not targets:
        if price is not None or spend_at_most is not None:
            raise UsageError("--price and --spend-at-most are for a model to prompt", hint="name one with --llm")
        return []
    from rung.tasks.prompting.costs import Price
    from rung.tasks.prompting.prompted import PromptedRung
    from rung.tasks.prompting.target import parse_target

    for target in targets:
        where = parse_target(target)
        if isinstance(where, Path) and not where.is_dir():
            raise UsageError(
                "there is no such folder",
                where=f"--llm {target}",
                hint="give a folder, or a URL: http://127.0.0.1:8000/v1",
            )
    parsed = None if price is None else Price.parse(price)
    names = ["prompted"] if len(targets) == 1 else [f"prompted-{number}" for number in range(1, len(targets) + 1)]
    return [
        PromptedRung(target, name=name, price=parsed, max_cost=spend_at_most)
        for target, name in zip(targets, names, strict=True)
    ]
