"""`rung generate`: text from a model, streamed to the terminal as it is drawn."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rung.cli.options import Json, Run, Threads, examples
from rung.cli.terminal import write
from rung.cli.threads import settle_threads

if TYPE_CHECKING:
    from rung.generation.engine import Generation
    from rung.generation.options import SamplingOptions
    from rung.tasks.language_modelling import LanguageModel

_EXAMPLES = examples(
    'rung generate runs/my_texts "Once upon a time"',
    'rung generate runs/my_texts "Once upon" --temperature 0.8 --top-p 0.95 --max-tokens 200 --seed 1',
    'rung generate runs/my_texts "Dear" --n 4 --stop "." --json',
    "rung generate runs/my_texts --temperature 0                    # greedy, from nothing",
    'rung generate smollm2 "Once upon a time"                        # a base; or model.gguf',
)


class Precision(StrEnum):
    """What is computed in; the names are those of `rung.load`."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("generate", epilog=_EXAMPLES, short_help="Let a model write.")(generate)


def generate(
    run: Run,
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", show_default=False, help="What the text begins with.")
    ] = "",
    *,
    max_tokens: Annotated[int, typer.Option("--max-tokens", metavar="N", help="At most this many.")] = 200,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", help="0: always the likeliest token.")
    ] = 0.8,
    top_k: Annotated[int | None, typer.Option("--top-k", metavar="K", help="Draw from the K likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", metavar="P", help="Draw from the likeliest tokens that make up P.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option("--min-p", metavar="P", help="Leave out what is below P times the likeliest.")
    ] = None,
    repetition_penalty: Annotated[
        float, typer.Option("--repetition-penalty", metavar="X", help="Above 1: avoid what was said already.")
    ] = 1.0,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", metavar="TEXT", help="End before this text; repeatable.")
    ] = None,
    n: Annotated[int, typer.Option("--n", metavar="N", min=1, help="This many texts, with seeds from --seed up.")] = 1,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Equal seeds write equal text.")] = 0,
    logprobs: Annotated[bool, typer.Option("--logprobs", help="Also show the log-probability of each token.")] = False,
    precision: Annotated[
        Precision,
        typer.Option("--precision", help="bf16: several texts at once go faster; int8: one text goes faster."),
    ] = Precision.fp32,
    invariant: Annotated[
        bool, typer.Option("--invariant", help="Equal bits whatever is written at the same time (slower).")
    ] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Let a model write on from PROMPT; text appears as it is drawn.

    RUN is a run folder of Rung, one of its checkpoints, a Hugging Face folder of a known architecture, a GGUF file, or
    the name of a base: smollm2, or ORG/NAME after `rung get ORG/NAME`.
    """
    from rung.generation.options import SamplingOptions

    options = [
        SamplingOptions(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            stop=tuple(stop or ()),
            max_tokens=max_tokens,
            seed=seed + number,
        )
        for number in range(n)
    ]
    settle_threads()
    import torch

    from rung.tasks import language_modelling

    if threads is not None:
        torch.set_num_threads(threads)
    model = language_modelling.load(run, precision=precision.value, invariant=invariant)
    if n == 1 and not (as_json or logprobs):
        _stream(model, prompt, options[0])
        return
    begun = time.perf_counter()
    texts = model.engine.generate([prompt] * n, options)
    seconds = time.perf_counter() - begun
    if as_json:
        _print_json(model, prompt, options, texts, seconds=seconds, logprobs=logprobs)
        return
    for option, text in zip(options, texts, strict=True):
        if n > 1:
            typer.secho(f"--- seed {option.seed}", dim=True)
        write(f"{prompt}{text.text}\n", sys.stdout)
        if logprobs:
            _print_logprobs(model, text)


def _stream(model: LanguageModel, prompt: str, options: SamplingOptions) -> None:
    """Write the prompt and then each piece as soon as it is certain."""
    pieces = model.engine.stream(prompt, options)
    write(prompt, sys.stdout)
    count, reason = 0, None
    for piece in pieces:
        write(piece.text, sys.stdout)
        count, reason = count + 1, piece.finish_reason
    write("\n", sys.stdout)
    if reason == "length" and count < options.max_tokens:
        note = f"(ended after {count} tokens: the network's context of {model.engine.context_length} is full)"
        typer.secho(note, err=True, dim=True)


def _print_logprobs(model: LanguageModel, text: Generation) -> None:
    """One line a token: its text, the natural logarithm of its probability under the network, the probability."""
    from math import exp

    for token, logprob in zip(text.token_ids, text.logprobs, strict=True):
        typer.echo(f"  {logprob:8.3f}  {100 * exp(logprob):6.2f} %  {model.tokenizer.decode([token])!r}")


def _print_json(
    model: LanguageModel,
    prompt: str,
    options: list[SamplingOptions],
    texts: list[Generation],
    *,
    seconds: float,
    logprobs: bool,
) -> None:
    from dataclasses import asdict

    from rung.cli.console import print_json

    written: list[dict[str, Any]] = []
    for option, text in zip(options, texts, strict=True):
        entry = {"seed": option.seed, "text": text.text, "finish_reason": text.finish_reason}
        if logprobs:
            tokens = [model.tokenizer.decode([token]) for token in text.token_ids]
            entry |= {"tokens": tokens, "token_ids": text.token_ids, "logprobs": text.logprobs}
        written.append(entry)
    drawn = sum(len(text.token_ids) for text in texts)
    asked = {name: value for name, value in asdict(options[0]).items() if name != "seed"}
    print_json(
        {
            "run": str(model.folder),
            "prompt": prompt,
            "options": asked,
            "texts": written,
            "prompt_tokens": texts[0].prompt_tokens,
            "tokens": drawn,
            "tokens_per_second": round(drawn / seconds, 1),
        }
    )
