"""What sets neural rungs apart: where the tokens and the first weights of their networks come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rung.data.text_encoder import TextEncoder, train_words
from rung.nets.classifier import Classifier, build_classifier
from rung.nets.convolution import ConvolutionConfig
from rung.nets.recurrent import RecurrentConfig
from rung.progress import SILENT, Progress
from rung.tasks.classification.initial_vectors import planned, require_planned
from rung.tasks.classification.network_training import seeded
from rung.tasks.task import Indices, Plan


@dataclass(frozen=True)
class Start:
    """Where a fit begins: a network and the encoder that belongs to it.

    `earlier_seconds` were spent once for all fits and belong to each; `note` says on what.
    """

    net: Classifier
    encoder: TextEncoder
    earlier_seconds: float = 0.0
    note: str = ""


class Family(Protocol):
    """The networks of one kind."""

    @property
    def longest(self) -> int:
        """The most tokens of a text that they should read."""
        ...

    @property
    def earlier_share(self) -> float:
        """The share of a fit's time that is spent before labels are looked at."""
        ...

    def untrained(self, task: Any, items: Indices) -> Start:
        """A start of the right shape for timing; its weights do not matter."""
        ...

    def plan(self, task: Any, start: Start, seconds: float | None, max_length: int) -> dict[str, Any]:
        """What `start` will need in the plan, when `seconds` may be spent there (None: no clock is read)."""
        ...

    def start(self, task: Any, plan: Plan, items: Indices, *, seed: int, progress: Progress) -> Start:
        """The start of a fit on `items`."""
        ...


@dataclass(frozen=True)
class WordNetworks:
    """Networks over word vectors, learned from the labelled texts alone or begun with the task's `vectors`.

    With `vectors`, their commonest words are known too where no labelled text holds them.
    """

    config: Callable[[int], ConvolutionConfig | RecurrentConfig]
    longest: int = 400
    max_vocabulary: int = 30_000
    earlier_share: float = 0.0

    def untrained(self, task: Any, items: Indices) -> Start:
        """See `Family`."""
        return self.start(task, planned(task.vectors), items, seed=0, progress=SILENT)

    def plan(self, task: Any, start: Start, seconds: float | None, max_length: int) -> dict[str, Any]:  # noqa: ARG002
        """See `Family`."""
        return planned(task.vectors)

    def start(self, task: Any, plan: Plan, items: Indices, *, seed: int, progress: Progress) -> Start:  # noqa: ARG002
        """See `Family`."""
        require_planned(plan, task.vectors)
        known = () if task.vectors is None else task.vectors.vectors.words
        encoder = train_words(training_texts(task, items), max_vocabulary=self.max_vocabulary, known=known)
        config = self.config(encoder.vocab_size)
        if task.vectors is not None:
            config = replace(config, embedding_size=task.vectors.size)
        with seeded(seed):
            net = build_classifier(config, len(task.label_names))
        if task.vectors is None:
            return Start(net, encoder)
        table = net.word_embeddings.weight
        table.requires_grad_(not task.vectors.frozen)
        note = task.vectors.initialise(table.detach().numpy(), encoder.tokens, as_drawn=True)
        return Start(net, encoder, note=note)


def training_texts(task: Any, items: Indices) -> list[str]:
    """The texts of these training items."""
    texts = task.items["train"].texts
    return [texts[number] for number in items.tolist()]
