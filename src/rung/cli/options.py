"""Options that several commands share, and the small grammar of `--set`."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rung.errors import UsageError

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
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, a checkpoint in it, or a Hugging Face folder.")]
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
Net = Annotated[
    str | None, typer.Option("--net", metavar="KIND", help="The kind of network.  [default: decoder]")
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
    """Raise UsageError when more than one of these options has a value."""
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, [], False)]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} contradict each other", hint="give one of them")


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn `a.b=value` strings into a mapping; values are read as TOML, and what is no TOML value is text.

    Raises UsageError for a string without `=` or a key given twice.
    """
    result: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not (equals and key):
            raise UsageError(
                f"--set takes KEY=VALUE, not '{pair}'", hint="for example --set optimizer.learning_rate=0.002"
            )
        if key in result:
            raise UsageError(f"--set gives {key} twice", hint="give it once")
        try:
            result[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            result[key] = text.strip()
    return result


def new_run(
    texts: Sequence[Path] | None,
    *,
    recipe: Path | None,
    settings_given: Sequence[str] | None,
    net: str | None,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """The arguments of `train` and `plan` that say what to do: texts, recipe file and single settings over it.

    Raises UsageError when there is no text, or --net and --set disagree.
    """
    if not texts:
        raise UsageError("there is no text to train on", hint="give files or folders: rung train my_texts/ --minutes 30")
    overrides = settings(settings_given or [])
    if net is not None:
        if overrides.setdefault("net.kind", net) != net:
            raise UsageError("--net and --set net.kind contradict each other", hint="give one of them")
    if tensorboard:
        overrides["tensorboard"] = True
    return {"texts": list(texts), "recipe": recipe, "overrides": overrides}
