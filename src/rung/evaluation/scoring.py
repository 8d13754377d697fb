"""Log-probabilities of given tokens under a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rung.data.tokenizer import Tokenizer
from rung.errors import EvaluationError
from rung.evaluation.windows import sliding_windows
from rung.nets.body import LanguageModel, carries_state

IGNORED = -100
"""The label of a place that is not scored."""
_LONGEST_READING = 2048
"""Tokens of a decoder's windows at most, by default: attention to many more takes most of the time and adds little."""
_SCORES_AT_ONCE = 2**24
"""Scores held in memory at a time: 64 MiB in float32."""


@runtime_checkable
class TokenScorer(Protocol):
    """A language model as measuring sees it: how surprised it is by given tokens, however it knows."""

    @property
    def context_length(self) -> int:
        """Tokens of the windows that a text is read in, by default."""
        ...

    @property
    def stride(self) -> int:
        """How far these windows slide, by default: a token has more than `context_length - stride` before it."""
        ...

    @property
    def max_length(self) -> int:
        """The longest window that can be read."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in, as records say it: "float32"."""
        ...

    def measuring(self) -> AbstractContextManager[None]:
        """What must hold while it is measured: no dropout, no gradients."""
        ...

    def token_nll(self, input_ids: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (scored,): -ln of the probability of each label that is not -100, row by row.

        `input_ids` and `labels` are (batch, time); `labels[i, t]` is the token that follows `input_ids[i, t]`. Each row
        stands alone, and is padded on the right. A row that begins a text begins with the end-of-text token.
        """
        ...


@dataclass(frozen=True)
class TokenScores:
    """A text's tokens and the natural logarithm of each one's probability, given those before it."""

    token_ids: list[int]
    logprobs: list[float]


def token_scorer(net: Any) -> TokenScorer:
    """How to measure `net`: itself if it is a `TokenScorer`, or what puts its hidden states through its head."""
    return net if isinstance(net, TokenScorer) else NetScorer(net)


def score(net: Any, tokenizer: Tokenizer, text: str, *, stride: int | None = None) -> TokenScores:
    """Return the log-probability of each token of `text`, the first one given the end-of-text token.

    A text longer than the context is read in windows that slide by `stride` (default: the scorer's), as in
    `bits_per_byte`. Raises EvaluationError for an empty text.
    """
    tokens = tokenizer.encode(text)
    if not tokens:
        raise EvaluationError("there is no text to score", hint="give a text of at least one character")
    scorer = token_scorer(net)
    windows = sliding_windows(0, len(tokens), context_length=scorer.context_length, stride=stride or scorer.stride)
    stream = np.array([tokenizer.start_token_id, *tokens])
    logprobs: list[float] = []
    with scorer.measuring():
        for window in windows:
            labels = stream[None, window.start + 1 : window.stop + 1].copy()
            labels[:, : window.score_from - window.start] = IGNORED
            logprobs.extend((-scorer.token_nll(stream[None, window.start : window.stop], labels)).tolist())
    return TokenScores(tokens, logprobs)


class NetScorer:
    """Scores tokens with a network: a body under `model`, a vocabulary head under `lm_head`, its shape in `config`.

    A decoder reads windows as long as its context (2,048 tokens of a longer one), each from its beginning; a network
    that carries a state reads much longer ones, so that a state has all of a usual document, or a long stretch of a
    longer one, behind it.
    """

    def __init__(self, net: Any) -> None:
        self._net = net
        self._longest: int = net.config.max_length
        window = min(self._longest, _LONGEST_READING)
        halves = (window, max(1, window // 2))
        self._reading: tuple[int, int] = net.config.reading if carries_state(net) else halves

    @property
    def context_length(self) -> int:
        """Tokens of a window."""
        return self._reading[0]

    @property
    def stride(self) -> int:
        """How far windows slide."""
        return self._reading[1]

    @property
    def max_length(self) -> int:
        """The longest window that the network can read."""
        return self._longest

    @property
    def precision(self) -> str:
        """What the embedded tokens are in, and therefore everything after them."""
        with self.measuring():
            tokens = torch.zeros(1, 1, dtype=torch.int64, device=self._net.lm_head.weight.device)
            return str(self._net.model.embed(tokens).dtype).removeprefix("torch.")

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Switch dropout and gradients off for the time being."""
        was_training = self._net.training
        self._net.train(False)
        try:
            with torch.inference_mode():
                yield
        finally:
            self._net.train(was_training)

    def token_nll(self, input_ids: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """As the protocol says; a network that only looks back needs no mask for padding on the right."""
        nll: NDArray[np.float64] = token_nll(self._net, torch.tensor(input_ids), torch.tensor(labels)).numpy()
        return nll


def token_nll(net: LanguageModel, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return (scored,) float64 on the CPU: -ln of the probability of each label that is not -100, row by row.

    `input_ids` and `labels` are (batch, time), padded on the right.
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
