"""`rung train`: raw text in, a language model out; also goes on after an interruption and trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rung.cli.options import (
    Json,
    Minutes,
    Net,
    Out,
    RecipeFile,
    Seed,
    Settings,
    Steps,
    Texts,
    Threads,
    Valid,
    examples,
    exclusive,
    new_run,
)
from rung.errors import UsageError

_EXAMPLES = examples(
    "rung train my_texts/ --minutes 30",
    "rung train book.txt notes/ --minutes 10 --out runs/mine --seed 7",
    "rung train my_texts/ --minutes 30 --dry-run                 # print the plan and stop",
    "rung train my_texts/ --steps 2000 --set tokenizer.vocab_size=8192 --set optimizer.kind=adamw",
    "rung train --resume runs/my_texts                           # after Ctrl-C or a crash",
    "rung train --extend runs/my_texts --minutes 60              # a finished run, trained on",
    "torchrun --nproc-per-node 2 -m rung train my_texts/ --minutes 30",
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("train", epilog=_EXAMPLES, short_help="Train a language model on your text.")(train)


def train(
    texts: Texts = None,
    minutes: Minutes = None,
    steps: Steps = None,
    out: Out = None,
    seed: Seed = None,
    threads: Threads = None,
    valid: Valid = None,
    net: Net = None,
    recipe: RecipeFile = None,
    set_: Settings = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", show_default=False, help="Go on with an interrupted run.")
    ] = None,
    extend: Annotated[
        Path | None,
        typer.Option("--extend", metavar="RUN", show_default=False, help="Train a finished run on (with --minutes)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard event files.")] = False,
    as_json: Json = False,
) -> None:
    """Train a language model on your text.

    Reads, cleans, deduplicates and splits the text, trains a tokenizer and a network sized for this machine, this
    text and these minutes, and leaves a folder that transformers opens too. --minutes is the whole command's time.
    """
    from rung.cli.console import print_json, watching
    from rung.cli.report import show_training
    from rung.tasks import language_modelling

    exclusive(resume=resume, extend=extend, text=texts)
    exclusive(minutes=minutes, steps=steps)
    if resume or extend:
        _refuse_settings(out=out, seed=seed, valid=valid, net=net, recipe=recipe, set=set_, dry_run=dry_run)
    with watching(as_json=as_json) as watcher:
        common: dict[str, Any] = {"progress": watcher, "display": watcher, "threads": threads}
        if resume:
            exclusive(resume=resume, steps=steps)
            summary = language_modelling.resume(resume, minutes=minutes, **common)
        elif extend:
            summary = language_modelling.extend(extend, minutes=minutes, steps=steps, **common)
        else:
            wanted = new_run(texts, recipe=recipe, settings_given=set_, net=net, tensorboard=tensorboard)
            summary = language_modelling.train(
                **wanted,
                **common,
                minutes=minutes,
                steps=steps,
                out=out,
                valid=valid or (),
                seed=seed,
                dry_run=dry_run,
            )
    if as_json:
        print_json(summary.to_json())
    else:
        show_training(summary)


def _refuse_settings(**given: object) -> None:
    """A run that goes on keeps the recipe it was planned with."""
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, [], False)]
    if names:
        raise UsageError(
            f"{', '.join(names)} cannot be changed for a run that goes on",
            hint="leave it out, or train anew from the text",
        )
