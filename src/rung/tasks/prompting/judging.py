"""From a prompt and texts to scores of the labels: an endpoint by what it answers, a local model by likelihood."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rung.tasks.prompting.costs import Usage
from rung.tasks.prompting.endpoint import Endpoint, Failed
from rung.tasks.prompting.parsing import first_token_probabilities, parse_label
from rung.tasks.prompting.replies import Answer
from rung.tasks.prompting.templates import CONTENT_FREE, Prompt

Scoring = Literal["parsed", "sum", "mean", "pmi"]
"""parsed: the label that the answer names. sum: log-probability of a label's tokens after the prompt (Brown et al.
2020). mean: the same per token. pmi: less what the label has after the same prompt around "N/A" (Holtzman et al. 2021).
"""


@dataclass(frozen=True)
class Judgement:
    """What was found of n texts: `probabilities` (n, classes) for each scoring, and which texts have no answer.

    `failures` says why, by position among the texts. `one_hot` counts the answers that came without probabilities.
    """

    probabilities: dict[Scoring, NDArray[np.float64]]
    failed: NDArray[np.bool_]
    failures: dict[int, str]
    usages: list[Usage | None] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    one_hot: int = 0


class Judge(Protocol):
    """Something that says how well each label fits a text."""

    @property
    def scorings(self) -> tuple[Scoring, ...]:
        """The ways of scoring that one judgement gives."""
        ...

    @property
    def num_parameters(self) -> int | None:
        """Learned numbers; None when nobody knows."""
        ...

    def judge(self, prompt: Prompt, texts: Sequence[str], *, workers: int | None = None) -> Judgement:
        """Score the labels of `prompt` for each text."""
        ...

    def sample(self, prompt: Prompt, text: str, *, samples: int, temperature: float) -> list[str]:
        """`samples` answers in words, drawn independently."""
        ...


class EndpointJudge:
    """Takes the label that an endpoint's answer names; its probabilities where the server tells those of tokens."""

    scorings: tuple[Scoring, ...] = ("parsed",)
    num_parameters: int | None = None

    def __init__(self, endpoint: Endpoint, *, fresh: bool = False) -> None:
        self.endpoint = endpoint
        self._fresh = fresh

    def judge(self, prompt: Prompt, texts: Sequence[str], *, workers: int | None = None) -> Judgement:
        """Ask once per text. An answer that names no label, or no answer, is a failure."""
        answers = self.endpoint.ask([prompt.conversation(text) for text in texts], workers=workers, fresh=self._fresh)
        classes = len(prompt.label_names)
        probabilities = np.full((len(texts), classes), 1 / classes)
        failures, one_hot = {}, 0
        for row, answer in enumerate(answers):
            label = None if isinstance(answer, Failed) else parse_label(answer.text, prompt.label_names)
            if isinstance(answer, Failed):
                failures[row] = answer.reason
            elif label is None:
                failures[row] = _unparsable(answer)
            else:
                told = first_token_probabilities(answer.alternatives or {}, prompt.label_names, label)
                one_hot += told is None
                probabilities[row] = np.eye(classes)[label] if told is None else told
        given = [answer for answer in answers if isinstance(answer, Answer)]
        return Judgement(
            {"parsed": probabilities},
            _rows(failures, len(texts)),
            failures,
            usages=[answer.usage for answer in given],
            seconds=[answer.seconds for answer in given],
            one_hot=one_hot,
        )

    def sample(self, prompt: Prompt, text: str, *, samples: int, temperature: float) -> list[str]:
        """Ask the same question again and again; a question that failed counts as an empty answer."""
        question = prompt.conversation(text)
        answers = [
            self.endpoint.ask([question], temperature=temperature, sample=number)[0] for number in range(samples)
        ]
        return ["" if isinstance(answer, Failed) else answer.text for answer in answers]


class LabelScorer(Protocol):
    """A language model that tells log-probabilities of given continuations."""

    num_parameters: int

    def token_logprobs(self, prefix: str, question: str, continuations: Sequence[str]) -> list[list[float]]:
        """ln P of each token of each continuation after `prefix + question`. TooLongError where it does not fit."""
        ...

    def write(self, text: str, *, samples: int, temperature: float, max_tokens: int) -> list[str]:
        """Continue `text` up to the end of the line, `samples` times."""
        ...


class TooLongError(Exception):
    """A prompt that does not fit the model's context."""


class LocalJudge:
    """Takes the label that a language model finds likeliest after the prompt."""

    scorings: tuple[Scoring, ...] = ("sum", "mean", "pmi")

    def __init__(self, scorer: LabelScorer, *, max_tokens: int = 16) -> None:
        self._scorer = scorer
        self._max_tokens = max_tokens
        self.num_parameters: int | None = scorer.num_parameters

    def judge(self, prompt: Prompt, texts: Sequence[str], *, workers: int | None = None) -> Judgement:  # noqa: ARG002
        """Score each text by itself, so that no score depends on what else is asked; `workers` is for endpoints.

        A text that does not fit the context with its prompt is a failure: it is not cut.
        """
        scores = np.zeros((len(self.scorings), len(texts), len(prompt.label_names)))
        failures: dict[int, str] = {}
        leaning: NDArray[np.float64] | None = None
        for row, text in enumerate(texts):
            try:
                tokens = self._label_logprobs(prompt, text)
                if leaning is None:
                    leaning = _sums(self._label_logprobs(prompt, CONTENT_FREE))
            except TooLongError as error:
                failures[row] = str(error)
                continue
            total = _sums(tokens)
            scores[:, row] = total, total / [len(label) for label in tokens], total - leaning
        probabilities = dict(zip(self.scorings, softmax(scores), strict=True))
        return Judgement(probabilities, _rows(failures, len(texts)), failures)

    def _label_logprobs(self, prompt: Prompt, text: str) -> list[list[float]]:
        labels = [f" {name}" for name in prompt.label_names]
        return self._scorer.token_logprobs(prompt.prefix, prompt.question(text), labels)

    def sample(self, prompt: Prompt, text: str, *, samples: int, temperature: float) -> list[str]:
        """Let the model write its answer."""
        return self._scorer.write(
            prompt.render(text), samples=samples, temperature=temperature, max_tokens=self._max_tokens
        )


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities over the last dimension."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def answer_variation(
    judge: Judge, prompt: Prompt, texts: Sequence[str], *, samples: int = 5, temperature: float = 0.7
) -> dict[str, Any]:
    """How much answers vary when each text is asked `samples` times.

    Returns `{items, samples, temperature, varying_share, unparsed_share}`: the share of texts whose parsed answers are
    not all the same (no label counts as an answer of its own), and the share of answers that name no label.
    """
    parsed = [
        [parse_label(answer, prompt.label_names) for answer in answers]
        for answers in (judge.sample(prompt, text, samples=samples, temperature=temperature) for text in texts)
    ]
    return {
        "items": len(texts),
        "samples": samples,
        "temperature": temperature,
        "varying_share": float(np.mean([len(set(labels)) > 1 for labels in parsed])),
        "unparsed_share": float(np.mean([label is None for labels in parsed for label in labels])),
    }


def _sums(tokens: Iterable[Sequence[float]]) -> NDArray[np.float64]:
    return np.array([sum(label) for label in tokens])


def _rows(failures: dict[int, str], count: int) -> NDArray[np.bool_]:
    failed = np.zeros(count, dtype=np.bool_)
    failed[list(failures)] = True
    return failed


def _unparsable(answer: Answer) -> str:
    cut = ", cut off at the longest answer allowed" if answer.finish_reason == "length" else ""
    return f"names no label{cut}: {answer.text[:200]!r}"
