"""Options that several commands share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rung.errors import UsageError

if TYPE_CHECKING:
    from rung.cli.trainers import Trainer

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for a program that Ctrl-C ended
AS_JSON = "rung.as_json"  # key in the command line's context: was --json given?


def examples(*commands: str) -> str:
    """Text for the end of a help page; the control character keeps its lines as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


def _remember_json(ctx: typer.Context, wanted: bool) -> bool:
    ctx.meta[AS_JSON] = wanted  # so that an error, too, becomes a JSON object
    return wanted


Json = Annotated[
    bool,
    typer.Option("--json", callback=_remember_json, help="End standard output with one JSON object: the result."),
]
Texts = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="TEXT",
        show_default=False,
        help="Files or folders: .txt .md .jsonl .csv .parquet .html, plain or .gz .zst .xz.",
    ),
]
Run = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run, a checkpoint in it, a Hugging Face folder, a .gguf file, or a name."),
]
Minutes = Annotated[
    float | None,
    typer.Option("--minutes", "-m", metavar="M", show_default=False, help="The whole command takes this long."),
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", metavar="N", min=1, show_default=False, help="Train N steps instead, without any clock."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="The run folder.  [default: runs/ and the text's name]"),
]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", show_default=False, help="Equal plan and seed: equal weights.")
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, help="CPU threads.  [default: as many as measured fastest]"),
]
Valid = Annotated[
    list[Path] | None,
    typer.Option("--valid", metavar="TEXT", help="Validation text of your own.  [default: a part of TEXT, held out]"),
]
Test = Annotated[
    list[Path] | None,
    typer.Option("--test", metavar="TEXT", help="Test pairs of your own (--task).  [default: a part, held out]"),
]
Net = Annotated[
    str | None,
    typer.Option(
        "--net",
        metavar="FAMILY",
        help="decoder, lstm, gru, rnn, feedforward, ngram; word2vec, glove, fasttext-vectors; bert; with --task "
        "translate: transformer, lstm.  [default: decoder, or what fits]",
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task", metavar="TASK", show_default=False, help="translate or rewrite: from one text to another, by pairs."
    ),
]
SourceColumn = Annotated[
    str | None, typer.Option("--source", metavar="COL", show_default=False, help="The column to translate (--task).")
]
TargetColumn = Annotated[
    str | None, typer.Option("--target", metavar="COL", show_default=False, help="The column of what it becomes.")
]
Pretrain = Annotated[
    list[Path] | None,
    typer.Option(
        "--pretrain",
        metavar="TEXT",
        show_default=False,
        help="Raw text in either language to pretrain on (--task); repeatable.",
    ),
]
RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE.toml", show_default=False, help="Settings from a file (see --set)."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", show_default=False, help="One setting of the recipe; repeatable."),
]


def exclusive(**given: object) -> None:
    """Raise UsageError when more than one of these options was given."""
    names = spelled(given)
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} contradict each other", hint="give one of them")


def spelled(given: Mapping[str, object]) -> list[str]:
    """The names of the options that have a value, as they are typed."""
    names = [name for name, value in given.items() if not (value is None or value is False or value == [])]
    return [name if name.isupper() else f"--{name.replace('_', '-')}" for name in names]  # TEXT is no option


def new_run(
    texts: Sequence[Path] | None,
    *,
    recipe: Path | None,
    assignments: Sequence[str] | None,
    net: str | None,
    trainer: Trainer,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """The arguments of a trainer's `train` and `plan` that say what to do: texts, recipe, single settings, network.

    Raises UsageError when there is no text or an option contradicts another.
    """
    from rung.recipe import parse_assignment

    if not texts and recipe is None:
        raise UsageError(
            "there is no text to train on", hint="give files or folders: rung train my_texts/ --minutes 30"
        )
    overrides: dict[str, Any] = {}
    for assignment in assignments or ():
        key, value = parse_assignment(assignment)
        if overrides.setdefault(key, value) != value:
            raise UsageError(f"--set gives {key} two values", hint="give it once")
    family = net if trainer.is_language_modelling else None
    if family is not None and overrides.setdefault("net.family", family) != family:
        raise UsageError(f"--net {net} contradicts --set net.family={overrides['net.family']}", hint="give one of them")
    if tensorboard:
        overrides["training.tensorboard"] = True
    wanted = {"texts": list(texts or ()), "recipe": recipe, "overrides": overrides}
    return wanted if trainer.is_language_modelling else {**wanted, "net": net}


def command_started() -> float:
    """The reading of `time.monotonic()` when this process began: --minutes counts from there, imports included."""
    import psutil

    return time.monotonic() - (time.time() - float(psutil.Process().create_time()))
