"""What stands in a prompt, and how examples are drawn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import TinyTask, labelled

from rung.errors import DataError
from rung.tasks.prompting.templates import (
    LONGEST_EXAMPLE,
    TEMPLATES,
    Example,
    Prompt,
    default_shots,
    distinct_prompts,
    draw_examples,
)

NAMES = ("ham", "spam")


def test_a_prompt_reads_as_intended() -> None:
    prompt = Prompt(TEMPLATES[0], NAMES, (Example("Win!", "spam"), Example("Lunch?", "ham")))
    assert prompt.render("Hello {labels} {text}") == (
        "Classify the text. The labels are: ham, spam. Answer with the label only.\n\n"
        "Text: Win!\nLabel: spam\n\n"
        "Text: Lunch?\nLabel: ham\n\n"
        "Text: Hello {labels} {text}\nLabel:"
    )


def test_a_chat_shows_examples_as_answers_given() -> None:
    prompt = Prompt(TEMPLATES[1], NAMES, (Example("Win!", "spam"),))
    (_, first), second, third = prompt.conversation("Hello")
    assert first.endswith("no other word.\n\nWin!\nAnswer:")
    assert (second, third) == (("assistant", "spam"), ("user", "Hello\nAnswer:"))
    no_examples = Prompt(TEMPLATES[1], NAMES)
    assert no_examples.conversation("Hello") == (("user", no_examples.render("Hello")),)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
@given(text=st.text(), label=st.text())
def test_every_template_keeps_texts_and_labels_as_they_are(template: object, text: str, label: str) -> None:
    prompt = Prompt(template, (*NAMES, label), (Example(text, label),))  # type: ignore[arg-type]
    assert prompt.render(text).count(text) >= 2
    assert prompt.render(text) == prompt.prefix + prompt.question(text)
    assert Prompt.from_json(prompt.to_json()) == prompt


@pytest.mark.parametrize(("classes", "shots"), [(2, 4), (3, 6), (4, 4), (5, 5), (6, 6), (8, 8), (150, 8)])
def test_shots_are_a_few_of_each_class(classes: int, shots: int) -> None:
    assert default_shots(classes) == shots


def test_draws_are_balanced_and_repeat(task: TinyTask) -> None:
    train, everything = task.items["train"], np.arange(40)
    draws = [draw_examples(train, everything, 4, seed=0, draw=draw) for draw in range(5)]
    assert all(Counter(example.label for example in draw) == {"ham": 2, "spam": 2} for draw in draws)
    assert len(set(draws)) == 5
    assert draws[3] == draw_examples(train, everything, 4, seed=0, draw=3)
    assert draws[3] != draw_examples(train, everything, 4, seed=1, draw=3)


def test_the_order_of_rows_does_not_matter(task: TinyTask) -> None:
    train, everything = task.items["train"], np.arange(40)
    order = np.random.default_rng(0).permutation(40)
    assert draw_examples(train.take(order), everything, 4, seed=0, draw=0) == draw_examples(
        train, everything, 4, seed=0, draw=0
    )


def test_a_rare_class_gives_what_it_has() -> None:
    items = labelled([f"text {n}" for n in range(20)], [0] * 19 + [1], NAMES)
    drawn = draw_examples(items, np.arange(20), 6, seed=0, draw=0)
    assert Counter(example.label for example in drawn) == {"ham": 5, "spam": 1}


def test_long_texts_are_no_examples() -> None:
    items = labelled(["x" * (LONGEST_EXAMPLE + 1), "short", "brief", "y" * LONGEST_EXAMPLE], [0, 1, 0, 1], NAMES)
    drawn = draw_examples(items, np.arange(4), 3, seed=0, draw=0)
    assert {example.text[:5] for example in drawn} == {"short", "brief", "yyyyy"}
    with pytest.raises(DataError, match="only 3 training texts"):
        draw_examples(items, np.arange(4), 4, seed=0, draw=0)


def test_templates_and_draws_are_crossed(task: TinyTask) -> None:
    prompts = distinct_prompts(NAMES, task.items["train"], np.arange(40), shots=(0, 4), draws=5, seed=0)
    assert len(prompts) == len({prompt for prompt, _ in prompts}) == 3 + 15
    shown = {draw: {prompt.examples for prompt, d in prompts if prompt.examples and d == draw} for draw in range(5)}
    assert all(len(examples) == 1 for examples in shown.values()), "each draw is shown under every template"
