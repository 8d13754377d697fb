"""What asking will take, before anything is asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rung.tasks.prompting.costs import Price
from rung.tasks.prompting.endpoint import EndpointOptions
from rung.tasks.prompting.judging import LocalJudge
from rung.tasks.prompting.templates import Prompt, distinct_prompts

if TYPE_CHECKING:
    from rung.tasks.prompting.local_model import LocalModel

CANDIDATES = ((50, 5), (50, 3), (30, 3), (20, 3), (10, 2))
"""Validation items and draws of examples to try, from the wanted to the least that still shows how prompts vary."""
_BYTES_PER_TOKEN = 4  # English under today's vocabularies; other languages have fewer bytes a token
_SECONDS_PER_REQUEST = 1.0
_TIMED = 3


def estimate(
    task: Any,
    shots: Sequence[int],
    draws: int,
    items: int,
    *,
    seed: int,
    options: EndpointOptions,
    price: Price | None,
    local: LocalModel | None,
) -> dict[str, Any]:
    """Requests, tokens, cost (None without a price) and seconds of choosing on `items` validation items and of one
    prediction of the test items, and what the estimate rests on (`basis`).

    `seconds` is the choosing alone: predicting is not part of a fit. The longest prompts are assumed for the test.
    """
    train, valid, test = (task.items[part] for part in ("train", "valid", "test"))
    everything = np.arange(len(train))
    prompts = [
        prompt
        for prompt, _ in distinct_prompts(task.label_names, train, everything, shots=shots, draws=draws, seed=seed)
    ]
    sampled = min(items, len(valid))
    around = [len(prompt.render("").encode()) for prompt in prompts]
    text_bytes = {part: _mean_bytes(task.items[part].texts) for part in ("valid", "test")}
    choosing = sampled * sum(size + text_bytes["valid"] for size in around)
    predicting = len(test) * (max(around) + text_bytes["test"])
    requests = len(prompts) * sampled
    prompt_tokens = round((choosing + predicting) / _BYTES_PER_TOKEN)
    completion_tokens = 0 if local else (requests + len(test)) * options.max_tokens
    if local is None:
        seconds = requests * _SECONDS_PER_REQUEST / options.concurrency
        basis = (
            f"assuming {_SECONDS_PER_REQUEST:g} s a request, {options.concurrency} at a time, "
            f"{_BYTES_PER_TOKEN} bytes a token and the longest answers allowed"
        )
        if options.requests_per_second is not None:
            seconds = max(seconds, requests / options.requests_per_second)
    else:
        seconds = sum(_seconds_per_text(prompt, valid.texts[:_TIMED], local) for prompt in prompts[:1] + prompts[-1:])
        seconds *= requests / len(prompts[:1] + prompts[-1:])
        basis = f"timed on {_TIMED} texts"
    return {
        "settings": len(prompts),
        "requests": requests,
        "test_requests": len(test),
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost": None if price is None else price.of(prompt_tokens, completion_tokens),
        "seconds": seconds,
        "basis": basis,
    }


def _seconds_per_text(prompt: Prompt, texts: Sequence[str], local: LocalModel) -> float:
    started = time.perf_counter()
    LocalJudge(local).judge(prompt, texts)
    return (time.perf_counter() - started) / max(1, len(texts))


def _mean_bytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode()) for text in texts) / max(1, len(texts))
