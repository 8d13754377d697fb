"""Guessing columns: right where it is clear, said aloud, and refused where it is not."""

from __future__ import annotations

import pytest

from rung.data.columns import as_string, guess_target, guess_text, traits
from rung.errors import DataError

REVIEWS = [f"a review of product number {n} which I have used for {n} days" for n in range(40)]
TITLES = [f"My opinion, part {n}" for n in range(40)]
LABELS = ["good", "bad"] * 20
DATES = [f"2025-03-{1 + n % 28:02d}" for n in range(40)]
KEYS = [f"A-{n:04d}" for n in range(40)]
PRICES = [str(n * 1.5) for n in range(40)]


def guesses(columns: dict[str, list]) -> tuple[str, list[str]]:
    found = {name: traits(name, values) for name, values in columns.items()}
    target, _ = guess_target(found, [], "t.csv")
    texts, _ = guess_text(found, [target], "t.csv")
    return target, texts


@pytest.mark.parametrize(
    ("columns", "target", "texts"),
    [
        ({"id": KEYS, "text": REVIEWS, "label": LABELS}, "label", ["text"]),
        ({"when": DATES, "Intent": LABELS, "utterance": TITLES}, "Intent", ["utterance"]),
        ({"c1": KEYS, "c2": REVIEWS, "c3": LABELS, "c4": DATES, "c5": PRICES}, "c3", ["c2"]),
        ({"subject": TITLES, "body": REVIEWS, "queue": LABELS, "priority": LABELS}, "queue", ["subject", "body"]),
        ({"target": ["1", "0"] * 20, "extra": ["x", "y"] * 20, "notes": REVIEWS}, "target", ["notes"]),
        ({"word": [f"w{n}" for n in range(40)], "class": LABELS}, "class", ["word"]),
    ],
)  # fmt: skip
def test_clear_tables_are_guessed(columns: dict[str, list], target: str, texts: list[str]) -> None:
    assert guesses(columns) == (target, texts)


def test_a_guess_says_why() -> None:
    found = {name: traits(name, values) for name, values in {"a": REVIEWS, "b": LABELS, "c": KEYS}.items()}
    target, why = guess_target(found, [], "t.csv")
    assert (target, "few short values that come back (2 values in 40 rows)" in why) == ("b", True)
    texts, why = guess_text(found, ["b"], "t.csv")
    assert (texts, "longest free text" in why, "40 different values" in why) == (["a"], True, True)


def test_two_possible_labels_are_not_guessed() -> None:
    found = {name: traits(name, values) for name, values in {"a": REVIEWS, "b": LABELS, "c": ["x", "y"] * 20}.items()}
    with pytest.raises(DataError, match="not clear which column holds the label: 'b', 'c' would do") as caught:
        guess_target(found, [], "t.csv")
    assert "--target" in str(caught.value)


def test_a_name_does_not_make_a_label_of_what_is_unique() -> None:
    found = {name: traits(name, values) for name, values in {"label": KEYS, "mood": LABELS, "text": REVIEWS}.items()}
    assert guess_target(found, [], "t.csv")[0] == "mood"


def test_no_text_and_no_label_say_what_there_is() -> None:
    found = {"n": traits("n", PRICES), "when": traits("when", DATES)}
    with pytest.raises(DataError, match="no column looks like a label; the columns are 'n', 'when'"):
        guess_target(found, ["when"], "t.csv")
    with pytest.raises(DataError, match="no column holds text"):
        guess_text(found, [], "t.csv")


def test_quantities_and_classes_are_told_apart() -> None:
    assert traits("price", [str(n * 0.5) for n in range(500)]).is_quantity
    assert traits("count", [str(n % 90) for n in range(500)]).is_quantity
    assert not traits("stars", [str(n % 5) for n in range(500)]).is_quantity
    assert not traits("intent", [str(n % 150) for n in range(15_000)]).is_quantity


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (1, "1"), (1.0, "1"), (1.5, "1.5"), ("True", "True")])
def test_cells_as_text(value: object, text: str) -> None:
    assert as_string(value) == text
