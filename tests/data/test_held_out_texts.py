"""Held-out texts are found in documents as a search word by word finds them, and only their lines go."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data import held_out_texts
from rung.data.held_out_texts import FEWEST_WORDS, without_held_out

WORDS = st.sampled_from(["a", "dog", "runs", "Fast"])
LINES = st.lists(WORDS, max_size=12).map(" ".join)
DOCUMENTS = st.lists(st.lists(LINES, min_size=1, max_size=4).map("\n".join).filter(bool), max_size=6)
HELD_OUT = st.lists(st.lists(WORDS, min_size=1, max_size=14).map(" ".join), max_size=4)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def lines_with(document: str, held_out: list[str]) -> set[int]:
    """Numbers of the lines that a word-by-word search finds some of a held-out text in."""
    places = [(number, word) for number, line in enumerate(document.splitlines()) for word in words(line)]
    found: set[int] = set()
    for text in map(words, held_out):
        for start in range(len(places) - len(text) + 1):
            here = places[start : start + len(text)]
            if len(text) >= FEWEST_WORDS and [word for _, word in here] == text:
                found |= set(range(here[0][0], here[-1][0] + 1))
    return found


@given(DOCUMENTS, HELD_OUT, st.integers(1, 60))
def test_the_lines_that_go_are_those_of_a_plain_search(documents: list[str], held_out: list[str], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out_texts, "_CHARACTERS_AT_ONCE", at_once)
        kept = without_held_out(documents, held_out)
    expected: list[str] = []
    gone = [lines_with(document, held_out) for document in documents]
    for document, numbers in zip(documents, gone, strict=True):
        if not numbers:
            expected.append(document)
            continue
        stretch = ""
        for number, line in enumerate([*document.splitlines(keepends=True), ""]):
            if number in numbers or not line:
                expected += [stretch] if stretch.strip() else []
                stretch = ""
            else:
                stretch += line
    assert kept.documents == expected
    assert kept.lines_dropped == sum(map(len, gone))
    assert kept.documents_cut == sum(map(bool, gone))


def test_case_punctuation_and_ends_of_lines_hide_nothing() -> None:
    document = 'First.\nHe said: "The DOG, it\nruns!" And left.\nLast.'
    kept = without_held_out([document, "The dog it ran."], ["the dog it runs"])
    assert kept.documents == ["First.\n", "Last.", "The dog it ran."]
    assert (kept.lines_dropped, kept.documents_cut) == (2, 1)


def test_texts_of_few_words_are_not_looked_for() -> None:
    assert without_held_out(["Thank you very much."], ["thank you very"]).documents == ["Thank you very much."]
    assert without_held_out(["Thank you very much."], ["thank you very much"]).documents == []
