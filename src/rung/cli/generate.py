"""`rung generate`: text from a model, streamed to the terminal as it is drawn."""

from __future__ import annotations

from typing import Annotated

import typer

from rung.cli.options import Json, Run, Threads, examples

_EXAMPLES = examples(
    'rung generate runs/my_texts "Once upon a time"',
    'rung generate runs/my_texts "Once upon" --temperature 0.8 --top-p 0.95 --max-tokens 200 --seed 1',
    'rung generate runs/my_texts "Dear" --n 4 --stop "." --json',
    "rung generate runs/my_texts --temperature 0                    # greedy, from nothing",
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("generate", epilog=_EXAMPLES, short_help="Let a model write.")(generate)


def generate(
    run: Run,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the text begins with.")] = "",
    *,
    max_tokens: Annotated[int, typer.Option("--max-tokens", metavar="N", min=1, help="At most this many.")] = 200,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", min=0.0, help="0: always the likeliest token.")
    ] = 0.8,
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", min=1, help="Draw from the K likeliest tokens.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", metavar="P", min=0.0, max=1.0, help="Draw from the likeliest tokens that make up P."),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            "--min-p", metavar="P", min=0.0, max=1.0, help="Leave out what is P times less likely than the best."
        ),
    ] = None,
    repetition_penalty: Annotated[
        float, typer.Option("--repetition-penalty", metavar="X", min=0.0, help="Above 1: avoid what was said already.")
    ] = 1.0,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", metavar="TEXT", help="End before this text; repeatable.")
    ] = None,
    n: Annotated[
        int, typer.Option("--n", metavar="N", min=1, help="This many texts, each with a seed of its own.")
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Equal seeds write equal text.")] = 0,
    logprobs: Annotated[bool, typer.Option("--logprobs", help="Also show the log-probability of each token.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Let a model write, beginning with PROMPT; text appears as it is drawn.

    RUN is a run folder of Rung, one of its checkpoints, or a Hugging Face folder of a known architecture.
    """
