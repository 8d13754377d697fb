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
    `took`: the seconds that a local model needed, also where its answers were kept since; 0 where nobody knows.
    """

    probabilities: dict[Scoring, NDArray[np.float64]]
    failed: NDArray[np.bool_]
    failures: dict[int, str]
    usages: list[Usage | None] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    one_hot: int = 0
    took: float = 0.0


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


LabelScores = list[list[float]]
"""ln P of each token of each label."""


class LabelScorer(Protocol):
    """A language model that tells log-probabilities of labels, and writes answers."""

    num_parameters: int

    def label_logprobs(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[LabelScores | Failed]:
        """What each label of `prompt` has after it around each text; Failed where that does not fit the context."""
        ...

    def write(
        self, prompt: Prompt, texts: Sequence[str], *, samples: int, temperature: float, max_tokens: int
    ) -> Sequence[list[str] | Failed]:
        """Answer `prompt` around each text `samples` times, in one line."""
        ...


class LocalJudge:
    """Takes the label that a language model finds likeliest after the prompt."""

    scorings: tuple[Scoring, ...] = ("sum", "mean", "pmi")

    def __init__(self, scorer: LabelScorer, *, max_tokens: int = 16) -> None:
        self._scorer = scorer
        self._max_tokens = max_tokens
        self.num_parameters: int | None = scorer.num_parameters

    def judge(self, prompt: Prompt, texts: Sequence[str], *, workers: int | None = None) -> Judgement:  # noqa: ARG002
        """Score all texts, in batches of the scorer's; `workers` is for endpoints.

        A text that does not fit the context with its prompt is a failure: it is not cut. Where not even "N/A" fits,
        nothing does.
        """
        scores = np.zeros((len(self.scorings), len(texts), len(prompt.label_names)))
        leaning, *found = self._scorer.label_logprobs(prompt, [CONTENT_FREE, *texts])
        failures = {row: one.reason for row, one in enumerate(found) if isinstance(one, Failed)}
        if isinstance(leaning, Failed):
            failures = {row: failures.get(row, leaning.reason) for row in range(len(texts))}
        for row, tokens in enumerate(found):
            if row in failures or isinstance(tokens, Failed) or isinstance(leaning, Failed):
                continue
            total = _sums(tokens)
            scores[:, row] = total, total / [len(label) for label in tokens], total - _sums(leaning)
        probabilities = dict(zip(self.scorings, softmax(scores), strict=True))
        return Judgement(probabilities, _rows(failures, len(texts)), failures)

    def sample(self, prompt: Prompt, text: str, *, samples: int, temperature: float) -> list[str]:
        """Let the model write its answer; where there is no room for one, it counts as empty."""
        (answers,) = self._scorer.write(
            prompt, [text], samples=samples, temperature=temperature, max_tokens=self._max_tokens
        )
        return [""] * samples if isinstance(answers, Failed) else answers


class WritingJudge(LocalJudge):
    """Takes the label that a language model writes, as of an endpoint: the likeliest answer, token by token."""

    scorings: tuple[Scoring, ...] = ("parsed",)

    def judge(self, prompt: Prompt, texts: Sequence[str], *, workers: int | None = None) -> Judgement:  # noqa: ARG002
        """Let the model answer each text once, greedily. An answer that names no label is a failure."""
        written = self._scorer.write(prompt, texts, samples=1, temperature=0.0, max_tokens=self._max_tokens)
        classes = len(prompt.label_names)
        probabilities = np.full((len(texts), classes), 1 / classes)
        failures = {}
        for row, answer in enumerate(written):
            label = None if isinstance(answer, Failed) else parse_label(answer[0], prompt.label_names)
            if isinstance(answer, Failed):
                failures[row] = answer.reason
            elif label is None:
                failures[row] = f"names no label: {answer[0][:200]!r}"
            else:
                probabilities[row] = np.eye(classes)[label]
        named = len(texts) - len(failures)
        return Judgement({"parsed": probabilities}, _rows(failures, len(texts)), failures, one_hot=named)


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
