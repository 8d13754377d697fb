"""`rung plan`: what `rung train` would do, how long it would take and what to expect of it."""

from __future__ import annotations

import typer

from rung.cli import options
from rung.cli.threads import settle_threads
from rung.cli.trainers import trainer_for

_EXAMPLES = options.examples(
    "rung plan my_texts/ --minutes 30",
    "rung plan my_texts/ --minutes 30 --set net.hidden_size=512      # what would a wider net cost?",
    "rung plan my_texts/ --steps 2000 --json                        # without timing anything",
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("plan", epilog=_EXAMPLES, short_help="Show what train would do, without training.")(plan)


def plan(
    texts: options.Texts = None,
    *,
    minutes: options.Minutes = None,
    steps: options.Steps = None,
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
    as_json: options.Json = False,
) -> None:
    """Show what `rung train` would do with the same arguments, without training.

    Prepares the text (kept for the training), times a few real steps on this machine and solves size, batch and steps
    for the minutes. Refuses what will not fit, and names the setting to change.
    """
    options.exclusive(minutes=minutes, steps=steps)
    trainer = trainer_for(net=net, task=task)
    wanted = options.new_run(texts, recipe=recipe, assignments=set_, net=net, trainer=trainer)

    settle_threads()
    from rung.cli.console import watching
    from rung.cli.reports import show_plan

    with watching(as_json=as_json) as watcher:
        planned = trainer.call(
            "plan",
            **wanted,
            minutes=minutes,
            steps=steps,
            valid=valid or (),
            test=test or (),
            source=source,
            target=target,
            pretrain=pretrain or (),
            seed=seed,
            threads=threads,
            progress=watcher,
            started=options.command_started(),
        )
    show_plan(planned, as_json=as_json)
