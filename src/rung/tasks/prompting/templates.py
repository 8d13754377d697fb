"""How a text is put to a language model: three templates, and the examples shown before it.

A template and a draw of examples change a prompted model's accuracy by several points (Zhao et al. 2021, "Calibrate
before use"; Lu et al. 2022, "Fantastically ordered prompts"), so neither is fixed by taste: each is tried, and how much
they matter is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rung.data.labelled import LabelledItems
from rung.errors import DataError

Conversation = tuple[tuple[Literal["user", "assistant"], str], ...]
"""Turns of a chat: who speaks ("user" or "assistant"), and what."""

CONTENT_FREE = "N/A"
"""Stands in for the text where a prompt's own leaning towards a label is measured (Zhao et al. 2021)."""
LONGEST_EXAMPLE = 1_000
"""Characters; longer training texts are not shown as examples, because every request would carry them."""


@dataclass(frozen=True)
class Template:
    """`instruction` may hold `{labels}`; `text` holds `{text}` and opens every example and the question.

    `answer` follows the text and ends without a space: a label is written after it as ` label`.
    """

    name: str
    instruction: str
    text: str
    answer: str


TEMPLATES: tuple[Template, ...] = (
    Template(
        "fields", "Classify the text. The labels are: {labels}. Answer with the label only.", "Text: {text}", "Label:"
    ),
    Template(
        "question",
        "Read the text and say which of these it is: {labels}. Answer with one of them, copied exactly, and no "
        "other word.",
        "{text}",
        "Answer:",
    ),
    Template(
        "bare",
        "Possible categories: {labels}. Name one, without any comment.",
        "Input: {text}\nWhich category fits the input best?",
        "Category:",
    ),
)


@dataclass(frozen=True)
class Example:
    """A labelled training text shown in a prompt."""

    text: str
    label: str


@dataclass(frozen=True)
class Prompt:
    """A template with its examples: all that stands around a text. Stored in a run folder as plain JSON."""

    template: Template
    label_names: tuple[str, ...]
    examples: tuple[Example, ...] = ()

    @property
    def prefix(self) -> str:
        """What every question of this prompt begins with; it ends before the question, on a line end."""
        shown = (f"{self._question(example.text)} {example.label}" for example in self.examples)
        return "\n\n".join([self._instruction, *shown]) + "\n"

    def question(self, text: str) -> str:
        """What follows the prefix: the text, and the word after which the label is expected."""
        return "\n" + self._question(text)

    def render(self, text: str) -> str:
        """The whole prompt for `text`."""
        return self.prefix + self.question(text)

    def conversation(self, text: str) -> Conversation:
        """The prompt as a chat: each example is a question and its answer, for chat models follow what they "said".

        The instruction opens the first question: not every chat format knows a system's role.
        """
        questions = [self._question(shown) for shown in (*(example.text for example in self.examples), text)]
        questions[0] = f"{self._instruction}\n\n{questions[0]}"
        turns: list[tuple[Literal["user", "assistant"], str]] = []
        for question, example in zip(questions, self.examples, strict=False):
            turns += [("user", question), ("assistant", example.label)]
        return (*turns, ("user", questions[-1]))

    @property
    def _instruction(self) -> str:
        return self.template.instruction.replace("{labels}", ", ".join(self.label_names))

    def _question(self, text: str) -> str:
        return f"{self.template.text.replace('{text}', text)}\n{self.template.answer}"

    def to_json(self) -> dict[str, Any]:
        """Plain values for `config.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Prompt:
        """Read what `to_json` wrote."""
        return cls(
            Template(**value["template"]),
            tuple(value["label_names"]),
            tuple(Example(**example) for example in value["examples"]),
        )


def default_shots(classes: int) -> int:
    """Examples in a k-shot prompt: the smallest multiple of the number of classes from 4 up, at most 8."""
    return min(8, classes * -(-4 // classes))


def draw_examples(
    items: LabelledItems, indices: NDArray[np.int64], shots: int, *, seed: int, draw: int
) -> tuple[Example, ...]:
    """Draw `shots` examples from the training items `indices`, as balanced over the classes as their numbers allow.

    A function of the items' content, the seed and the number of the draw. Classes take turns in a random order, and so
    do the examples of each. Texts above `LONGEST_EXAMPLE` characters are not drawn. Raises DataError when there are
    fewer than `shots` texts to draw from.
    """
    generator = np.random.default_rng([seed, draw, shots])
    fitting = sorted((items.ids[i], int(i)) for i in indices if len(items.texts[i]) <= LONGEST_EXAMPLE)
    if len(fitting) < shots:
        raise DataError(
            f"{shots} examples cannot be shown: only {len(fitting)} training texts have at most {LONGEST_EXAMPLE:,} "
            "characters",
            hint="ask for fewer examples (shots), or none",
        )
    queues: dict[int, list[int]] = {}
    for position in generator.permutation(len(fitting)):
        index = fitting[position][1]
        queues.setdefault(int(items.labels[index]), []).append(index)
    classes = [int(label) for label in generator.permutation(sorted(queues))]
    chosen: list[int] = []
    while len(chosen) < shots:
        turn = [queues[label].pop() for label in classes if queues[label]]
        chosen += turn[: shots - len(chosen)]
    # Examples of one class side by side make a model repeat the last one's label: mix them (Zhao et al. 2021, recency).
    order = generator.permutation(len(chosen))
    return tuple(Example(items.texts[chosen[i]], items.label_names[items.labels[chosen[i]]]) for i in order)


def distinct_prompts(
    label_names: Sequence[str],
    items: LabelledItems,
    indices: NDArray[np.int64],
    *,
    shots: Sequence[int],
    draws: int,
    seed: int,
    templates: Sequence[Template] = TEMPLATES,
) -> list[tuple[Prompt, int]]:
    """Every template with every draw of every number of examples, and the number of the draw.

    Without examples there is nothing to draw, so 0 shots gives one prompt a template.
    """
    found = []
    for count in shots:
        for draw in range(draws if count else 1):
            examples = draw_examples(items, indices, count, seed=seed, draw=draw) if count else ()
            found += [(Prompt(template, tuple(label_names), examples), draw) for template in templates]
    return found
