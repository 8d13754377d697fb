"""`rung train`: text in, a network out; also goes on after an interruption and trains on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rung.cli import options
from rung.cli.plan import plan
from rung.cli.threads import settle_threads
from rung.cli.trainers import Trainer, trainer_for, trainer_of
from rung.errors import UsageError

_EXAMPLES = options.examples(
    "rung train my_texts/ --minutes 30",
    "rung train book.txt notes/ --minutes 10 --out runs/mine --seed 7",
    "rung train my_texts/ --minutes 30 --dry-run                 # print the plan and stop",
    "rung train my_texts/ --net lstm --minutes 30                # or gru, rnn, feedforward, ngram, bert",
    "rung train my_texts/ --net word2vec                         # or glove, fasttext-vectors: vectors of words",
    "rung train pairs.csv --task translate --source en --target de --minutes 30",
    "rung train train.en.gz train.de.gz --task translate --minutes 30",
    "rung train pairs.csv --task translate --source en --target de --pretrain my_texts/ --minutes 30",
    "rung train my_texts/ --steps 2000 --set tokenizer.vocab_size=8192 --set training.optimizer=adamw",
    "rung train --resume runs/my_texts                           # after Ctrl-C or a crash",
    "rung train --extend runs/my_texts --minutes 60              # a finished run: the same text for longer",
    "rung train --from runs/my_texts new_texts/ --replay 0.1     # a finished run: other text, 10 % old",
    "rung train --from runs/my_texts new_texts/ --eval reviews.csv --target label",
    "torchrun --nproc-per-node 2 -m rung train my_texts/ --minutes 30",
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("train", epilog=_EXAMPLES, short_help="Train a network on your text.")(train)


def train(
    texts: options.Texts = None,
    *,
    minutes: options.Minutes = None,
    steps: options.Steps = None,
    out: options.Out = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
    valid: options.Valid = None,
    test: options.Test = None,
    net: options.Net = None,
    task: options.TaskName = None,
    source: options.SourceColumn = None,
    target: options.TargetColumn = None,
    pretrain: options.Pretrain = None,
    recipe: options.RecipeFile = None,
    set_: options.Settings = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", show_default=False, help="Go on with an interrupted run.")
    ] = None,
    extend: Annotated[
        Path | None,
        typer.Option(
            "--extend", metavar="RUN", show_default=False, help="Train a finished run on with its own text for longer."
        ),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            show_default=False,
            help="Carry a finished run on with TEXT: its network and tokenizer, a learning rate raised and lowered "
            "again, and in the end what was gained on the new text and lost on the old.",
        ),
    ] = None,
    replay: Annotated[
        float | None,
        typer.Option("--replay", metavar="SHARE", help="Old text among the new, with --from.  [default: 0]"),
    ] = None,
    penalty: Annotated[
        float | None,
        typer.Option(
            "--penalty",
            metavar="W",
            help="Pull weights back towards those of --from, by learning rate x W a step.  [default: 0]",
        ),
    ] = None,
    eval_: Annotated[
        list[Path] | None,
        typer.Option(
            "--eval",
            metavar="TABLE",
            help="With --from: labelled items, asked about by prompts before and after; repeatable. --target names "
            "their labels.  [default: guessed]",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard event files.")] = False,
    as_json: options.Json = False,
) -> None:
    """Train a network on your text: a language model, word vectors, BERT, or (--task) a translator of any kind.

    Reads, cleans, deduplicates and splits the text, trains a tokenizer and a network sized for this machine, this
    text and these minutes, and leaves a folder that transformers opens too. --minutes is the whole command's time.
    """
    options.exclusive(minutes=minutes, steps=steps)
    options.exclusive(**{"resume": resume, "extend": extend, "from": from_})
    options.exclusive(resume=resume, extend=extend, dry_run=dry_run)
    if dry_run and not from_:
        _only_with_from(replay=replay, penalty=penalty, eval=eval_)
        plan(
            texts,
            minutes=minutes,
            steps=steps,
            seed=seed,
            threads=threads,
            valid=valid,
            test=test,
            net=net,
            task=task,
            source=source,
            target=target,
            pretrain=pretrain,
            recipe=recipe,
            set_=set_,
            as_json=as_json,
        )
        return
    goes_on = resume or extend
    columns = {"source": source, "target": target, "pretrain": pretrain}
    if goes_on:
        given = {"TEXT": texts, "valid": valid, "test": test, "task": task, "recipe": recipe, "set": set_}
        _refuse(**given, **columns, seed=seed, net=net, tensorboard=tensorboard)
    if resume:
        _refuse(minutes=minutes, steps=steps, out=out)
    if from_:
        _refuse(**{**columns, "target": None if eval_ else target}, net=net, task=task, recipe=recipe, test=test)
    else:
        _only_with_from(replay=replay, penalty=penalty, eval=eval_)
    known = goes_on or from_
    trainer = trainer_of(known) if known else trainer_for(net=net, task=task)
    wanted: dict[str, Any] = {}
    if not goes_on:
        wanted = options.new_run(
            texts, recipe=recipe, assignments=set_, net=net, trainer=trainer, tensorboard=tensorboard
        )
        wanted |= {"valid": valid or (), "test": test or (), "seed": seed}
        wanted |= {**columns, "pretrain": pretrain or ()}
    if from_:
        carried = {"parent": from_, "replay": replay or 0.0, "penalty": penalty or 0.0}
        carried |= {"tasks": eval_ or (), "target": target}
        wanted = {**carried, **{key: wanted[key] for key in ("texts", "overrides", "valid", "seed")}}

    settle_threads()
    from rung.cli.console import watching
    from rung.cli.reports import end_training, show_plan

    budget: dict[str, Any] = {"minutes": minutes, "steps": steps, "out": out, "started": options.command_started()}
    if dry_run:
        del budget["out"]
        with watching(as_json=as_json) as watcher:
            planned = trainer.function("plan_carry_on")(**wanted, **budget, threads=threads, progress=watcher)
        show_plan(planned, as_json=as_json)
        return
    with watching(as_json=as_json) as watcher:
        common: dict[str, Any] = {"threads": threads, "progress": watcher, "display": watcher}
        if resume:
            summary = trainer.call("resume", resume, **common)
        elif extend:
            summary = trainer.call("extend", extend, **budget, **common)
        else:
            summary = trainer.call("carry_on" if from_ else "train", **wanted, **budget, **common)
    end_training(summary, _shown_by(trainer, summary), as_json=as_json)


def _shown_by(trainer: Trainer, summary: Any) -> Callable[[Any], None]:
    """What tells people of a training."""
    from rung.cli.continuing import show_continued
    from rung.cli.reports import show_trained, show_training

    if not trainer.is_language_modelling:
        return show_trained
    return show_continued if hasattr(summary, "changes") else show_training


def _only_with_from(**given: object) -> None:
    if names := options.spelled(given):
        raise UsageError(
            f"{', '.join(names)} means nothing without --from", hint="name the run to carry on: rung train --from RUN"
        )


def _refuse(**given: object) -> None:
    """A run that goes on keeps what it was planned with."""
    if names := options.spelled(given):
        raise UsageError(
            f"{', '.join(names)} cannot be given for a run that goes on",
            hint="leave it out, or train anew from the text",
        )
