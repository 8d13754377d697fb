"""What asking will take, before anything is asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from rung.errors import PlanError
from rung.tasks.prompting.costs import Price
from rung.tasks.prompting.endpoint import EndpointOptions
from rung.tasks.prompting.templates import CONTENT_FREE, distinct_prompts

if TYPE_CHECKING:
    from rung.tasks.prompting.local_model import LocalModel

CANDIDATES = ((50, 5), (50, 3), (30, 3), (20, 3), (10, 2))
"""Validation items and draws of examples to try, from the wanted to the least that still shows how prompts vary."""
_BYTES_PER_TOKEN = 4  # English under today's vocabularies; other languages have fewer bytes a token
_SECONDS_PER_REQUEST = 1.0
_TIMED = 8


def estimate(
    task: Any,
    shots: Sequence[int],
    draws: int,
    items: int,
    *,
    seed: int,
    options: EndpointOptions,
    price: Price | None,
    seconds_per_text: float | None,
) -> dict[str, Any]:
    """Requests, tokens, cost (None without a price) and seconds, and what the estimate rests on (`basis`).

    Tokens and cost are those of choosing on `items` validation items and of one prediction of the test items, with the
    longest prompt; `seconds` is the choosing alone, for predicting is no part of a fit. `seconds_per_text` is what was
    measured of a local model, None for an endpoint.
    """
    train, valid, test = (task.items[part] for part in ("train", "valid", "test"))
    crossed = distinct_prompts(task.label_names, train, np.arange(len(train)), shots=shots, draws=draws, seed=seed)
    around = [len(prompt.render("").encode()) for prompt, _ in crossed]
    sampled = min(items, len(valid))
    requests = len(crossed) * sampled
    num_bytes = sampled * sum(around) + requests * _mean_bytes(valid.texts)
    num_bytes += len(test) * (max(around) + _mean_bytes(test.texts))
    prompt_tokens = round(num_bytes / _BYTES_PER_TOKEN)
    if seconds_per_text is None:
        completion_tokens = (requests + len(test)) * options.max_tokens
        rate = options.concurrency / _SECONDS_PER_REQUEST
        seconds = requests / min(rate, options.requests_per_second or rate)
        basis = (
            f"assuming {_SECONDS_PER_REQUEST:g} s a request, {options.concurrency} at a time, "
            f"{_BYTES_PER_TOKEN} bytes a token and the longest answers allowed"
        )
    else:
        completion_tokens, seconds = 0, requests * seconds_per_text
        basis = f"timed on {_TIMED} texts; {_BYTES_PER_TOKEN} bytes a token"
    return {
        "settings": len(crossed),
        "requests": requests,
        "test_requests": len(test),
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost": None if price is None else price.of(prompt_tokens, completion_tokens),
        "seconds": seconds,
        "basis": basis,
    }


def seconds_per_text(task: Any, shots: Sequence[int], local: LocalModel, *, seed: int) -> dict[int, float]:
    """Time a local model on a few validation texts for each number of examples whose prompts fit its context.

    What a prompt's texts share is read before. Raises PlanError when not even the shortest prompts fit.
    """
    times = {count: seconds for count in shots if (seconds := _timed(task, count, local, seed)) is not None}
    if not times:
        raise PlanError(
            f"no validation text fits the context of {local.context_length:,} tokens together with its prompt",
            where=str(local.folder),
            hint="prompt a model with a longer context",
        )
    return times


def _timed(task: Any, count: int, local: LocalModel, seed: int) -> float | None:
    train = task.items["train"]
    crossed = distinct_prompts(task.label_names, train, np.arange(len(train)), shots=[count], draws=1, seed=seed)
    prompt = max((prompt for prompt, _ in crossed), key=lambda prompt: len(prompt.prefix))
    fitting = list(islice((text for text in task.items["valid"].texts if local.fits(prompt, text)), _TIMED))
    if not fitting:
        return None
    local.label_logprobs(prompt, [CONTENT_FREE, fitting[0]])  # reads what all of them share
    started = time.perf_counter()
    local.label_logprobs(prompt, fitting)
    return (time.perf_counter() - started) / len(fitting)


def _mean_bytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode()) for text in texts) / max(1, len(texts))
