"""Log-probabilities of given tokens under a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from rung.data.tokenizer import Tokenizer
from rung.errors import EvaluationError
from rung.evaluation.windows import sliding_windows
from rung.nets.body import LanguageModel

IGNORED = -100
"""The label of a place that is not scored."""
_SCORES_AT_ONCE = 2**24
"""Scores held in memory at a time: 64 MiB in float32."""


class _Config(Protocol):
    @property
    def max_position_embeddings(self) -> int: ...


class BoundedModel(LanguageModel, Protocol):
    """A language model that knows how many positions it has."""

    @property
    def config(self) -> _Config:
        """The network's shape."""
        ...

    training: bool

    def train(self, mode: bool = True) -> object:
        """Switch dropout on or off, as torch's modules do."""
        ...


@dataclass(frozen=True)
class TokenScores:
    """A text's tokens and the natural logarithm of each one's probability, given those before it."""

    token_ids: list[int]
    logprobs: list[float]


def score(net: BoundedModel, tokenizer: Tokenizer, text: str, *, stride: int | None = None) -> TokenScores:
    """Return the log-probability of each token of `text`, the first one given the end-of-text token.

    A text longer than the context is read in windows that slide by `stride` (default: half the context), as in
    `bits_per_byte`. Raises EvaluationError for an empty text.
    """
    tokens = tokenizer.encode(text)
    if not tokens:
        raise EvaluationError("there is no text to score", hint="give a text of at least one character")
    context_length = net.config.max_position_embeddings
    windows = sliding_windows(
        0, len(tokens), context_length=context_length, stride=stride or max(1, context_length // 2)
    )
    inputs, logprobs = [tokenizer.eos_token_id, *tokens], []
    with measuring(net):
        for window in windows:
            labels = torch.full((window.stop - window.start,), IGNORED)
            labels[window.score_from - window.start :] = torch.tensor(tokens[window.score_from : window.stop])
            nll = token_nll(net, torch.tensor([inputs[window.start : window.stop]]), labels[None])
            logprobs.extend((-nll).tolist())
    return TokenScores(tokens, logprobs)


@contextmanager
def measuring(net: BoundedModel) -> Iterator[torch.dtype]:
    """Switch dropout and gradients off for the time being; yields the dtype that `net` computes in."""
    was_training = net.training
    net.train(False)
    try:
        with torch.inference_mode():
            device = net.lm_head.weight.device
            yield net.model.embed(torch.zeros(1, 1, dtype=torch.int64, device=device)).dtype
    finally:
        net.train(was_training)


def token_nll(net: LanguageModel, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return (scored,) float64 on the CPU: -ln of the probability of each label that is not -100, row by row.

    `input_ids` and `labels` are (batch, time); `labels[i, t]` is the token that follows `input_ids[i, t]`. Rows are
    padded on the right, where a network that only looks back needs no mask.
    """
    device = net.lm_head.weight.device
    hidden = net.model(net.model.embed(input_ids.to(device))).hidden
    labels = labels.to(device)
    scored = labels != IGNORED
    hidden, labels = hidden[scored], labels[scored]
    rows = max(1, _SCORES_AT_ONCE // net.lm_head.weight.shape[0])
    parts = [
        F.cross_entropy(net.lm_head(part).float(), wanted, reduction="none")
        for part, wanted in zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True)
    ]
    return torch.cat(parts).double().cpu()
