"""`rung tune`: another model's weights, tuned to a task of the user's own."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rung.cli import options
from rung.cli.threads import settle_threads
from rung.errors import UsageError

if TYPE_CHECKING:
    from rung.tasks.tuning.method import TuningMethod

_EXAMPLES = options.examples(
    "rung tune minilm questions.csv --task classify --target topic --epochs 3",
    "rung tune minilm questions.csv --task classify --target topic --frozen         # the head alone: seconds",
    "rung tune models/bert questions.csv --task classify --layer-decay 0.9 --minutes 10",
    "rung tune smollm2 questions.csv --task classify --lora --rank 8 --minutes 10",
    "rung tune minilm pairs.csv --task similarity --minutes 10",
    "rung tune models/t5-small pairs.csv --task rewrite --source long --target short --minutes 20",
    "rung tune smollm2 conversations.jsonl --task chat --lora --minutes 20",
    "rung tune smollm2 my_texts/ --task text --minutes 20",
    "rung tune runs/my_chat chosen_and_rejected.jsonl --task prefer --steps 200",
    "rung tune --resume runs/questions                          # after Ctrl-C or a crash",
)


class Task(StrEnum):
    """What is tuned for."""

    CLASSIFY = "classify"
    TAG = "tag"
    SIMILARITY = "similarity"
    REWRITE = "rewrite"
    CHAT = "chat"
    TEXT = "text"
    PREFER = "prefer"
    REWARD = "reward"


class BasePrecision(StrEnum):
    """What the weights that LoRA does not train are kept in."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("tune", epilog=_EXAMPLES, short_help="Tune open weights to your task: all, a head, or LoRA.")(tune)


def tune(
    base: Annotated[
        str | None,
        typer.Argument(
            metavar="BASE", show_default=False, help="A model folder, a run, a .gguf file, or a name: minilm, smollm2."
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Argument(metavar="DATA", show_default=False, help="Tables, conversations or texts, as the task has it."),
    ] = None,
    *,
    task: Annotated[Task | None, typer.Option("--task", show_default=False, help="What to tune for.")] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", metavar="COL", show_default=False, help="The column of labels or answers."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="COL", show_default=False, help="A column of text; repeatable."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="COL", show_default=False, help="The column to rewrite.")
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option("--prefix", metavar="TEXT", show_default=False, help="Put before every text to rewrite."),
    ] = None,
    frozen: Annotated[bool, typer.Option("--frozen", help="Train the head only; the body stays as it is.")] = False,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train low-rank additions to the weights (LoRA) instead of the weights.")
    ] = False,
    rank: Annotated[
        int | None, typer.Option("--rank", metavar="R", min=1, show_default=False, help="Rank of LoRA's additions.")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", metavar="A", show_default=False, help="LoRA's additions are scaled by alpha / rank."),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option("--targets", metavar="A,B,...", show_default=False, help="Layers that get LoRA: q_proj,v_proj"),
    ] = None,
    dora: Annotated[bool, typer.Option("--dora", help="LoRA with the weights' magnitudes trained apart.")] = False,
    base_precision: Annotated[
        BasePrecision | None,
        typer.Option("--base-precision", show_default=False, help="What LoRA keeps the base's weights in."),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            "--layer-decay", metavar="D", show_default=False, help="Each layer learns at D times the rate of the next."
        ),
    ] = None,
    gradual: Annotated[
        bool, typer.Option("--gradual", help="Unfreeze layer by layer, from the last to the first.")
    ] = False,
    minutes: options.Minutes = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", metavar="N", show_default=False, help="Read the data N times instead.")
    ] = None,
    steps: options.Steps = None,
    valid: options.Valid = None,
    test: Annotated[
        list[Path] | None,
        typer.Option("--test", metavar="DATA", help="Test data of your own.  [default: a part of DATA, held out]"),
    ] = None,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Go on although over 5 % of the test items are in training.")
    ] = False,
    out: options.Out = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
    set_: options.Settings = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", show_default=False, help="Go on with an interrupted run.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: options.Json = False,
) -> None:
    """Tune open weights (BASE) to your task with your data (DATA).

    The whole network by default; --frozen trains a new head alone, --lora low-rank additions that are saved by
    themselves (those of a sentence encoder, --task similarity, are merged into it). The result is measured on data that
    was held out, and is a folder that another program opens too: transformers, peft for LoRA, sentence-transformers for
    a classifier that reads the mean over tokens; its card says which. An option that means nothing to a task
    is refused.
    """
    options.exclusive(minutes=minutes, epochs=epochs, steps=steps)
    method: dict[str, Any] = {
        "frozen": frozen, "lora": lora, "rank": rank, "alpha": alpha, "targets": targets, "dora": dora,
        "base_precision": base_precision, "layer_decay": layer_decay, "gradual": gradual,
    }  # fmt: skip
    wanted: dict[str, Any] = {
        "target": target, "text": text, "source": source, "prefix": prefix, "minutes": minutes, "epochs": epochs,
        "steps": steps, "valid": valid, "test": test, "allow_leaks": allow_leaks, "out": out, "seed": seed,
    }  # fmt: skip
    if resume is not None:
        _refuse_beside_resume(
            BASE=base, DATA=data, task=task, set=set_, dry_run=dry_run, threads=threads, **wanted, **method
        )
        _go_on(resume, as_json=as_json)
        return
    if base is None or not data or task is None:
        raise UsageError(
            f"{'a base' if base is None else 'data' if not data else '--task'} is missing",
            hint="for example: rung tune minilm questions.csv --task classify --target topic",
        )
    from rung.recipe import parse_assignment

    wanted |= {"overrides": dict(map(parse_assignment, set_ or ())), "threads": threads}
    given = {name: value for name, value in wanted.items() if value not in (None, False, [], {})}
    settle_threads()
    if any(value not in (None, False) for value in method.values()):
        given["method"] = _method(**method)
    from rung.cli.console import watching
    from rung.cli.reports import end_training, show_plan, show_trained
    from rung.tasks.tuning import tune as tuning

    given |= {"task": task.value, "started": options.command_started()}
    with watching(as_json=as_json) as watcher:
        if not dry_run:
            tuned = tuning.tune(base, data, **given, progress=watcher, display=watcher)
        else:
            given.pop("out", None)  # nothing is written
            planned = tuning.plan(base, data, **given, progress=watcher)
    if not dry_run:
        end_training(tuned, show_trained, as_json=as_json)
    else:
        show_plan(planned, as_json=as_json)


def _go_on(run: Path, *, as_json: bool) -> None:
    settle_threads()
    from rung.cli.console import watching
    from rung.cli.reports import end_training, show_trained
    from rung.tasks.tuning import tune as tuning

    with watching(as_json=as_json) as watcher:
        summary = tuning.resume(run, progress=watcher, display=watcher)
    end_training(summary, show_trained, as_json=as_json)


def _refuse_beside_resume(**given: object) -> None:
    """A run that goes on keeps what it was begun with."""
    if names := options.spelled(given):
        raise UsageError(
            f"{', '.join(names)} cannot be given for a run that goes on", hint="leave it out, or tune anew"
        )


def _method(
    *,
    frozen: bool,
    lora: bool,
    rank: int | None,
    alpha: float | None,
    targets: str | None,
    dora: bool,
    base_precision: BasePrecision | None,
    layer_decay: float | None,
    gradual: bool,
) -> TuningMethod:
    """How to tune. UsageError where options contradict one another."""
    options.exclusive(frozen=frozen, lora=lora)
    of_lora = {"rank": rank, "alpha": alpha, "targets": targets, "dora": dora, "base_precision": base_precision}
    if not lora and (names := options.spelled(of_lora)):
        raise UsageError(f"{', '.join(names)} belong to LoRA", hint="give --lora too")
    if frozen and (names := options.spelled({"layer_decay": layer_decay, "gradual": gradual})):
        raise UsageError(f"{', '.join(names)} means nothing to a frozen body", hint="leave one of them out")
    from rung.tasks.tuning.method import TuningMethod

    config = None
    if lora:
        from rung.nets.lora import LoraConfig

        values: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "use_dora": dora or None}
        if targets is not None:
            values["target_modules"] = tuple(name.strip() for name in targets.split(",") if name.strip())
        config = LoraConfig(**{name: value for name, value in values.items() if value is not None})
    return TuningMethod(
        kind="lora" if lora else "frozen" if frozen else "full",
        lora=config,
        layer_decay=layer_decay,
        gradual=gradual,
        base_precision="fp32" if base_precision is None else base_precision.value,
    )
