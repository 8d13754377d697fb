"""Leaks between train and test: the published overlaps of public sets, and the definitions against plain Python."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data import leaks
from rung.data.labelled import LabelledItems
from rung.data.labelled_reading import read_labelled
from rung.data.leaks import find_leaks, found_in_documents, require_no_leaks, without_items
from rung.data.similar_items import is_among
from rung.errors import DataError

VOCABULARY = ["a", "b", "c", "d"]
TEXTS = st.lists(st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=16).map(" ".join), min_size=1, max_size=12)
LONG = "the quick brown fox jumps over the lazy dog while seven wizards mix potions in a cold dark cellar at night"


def items_of(texts: list[str], labels: list[int] | None = None) -> LabelledItems:
    return LabelledItems(
        ids=[str(at) for at in range(len(texts))],
        texts=texts,
        labels=np.array(labels if labels is not None else [0] * len(texts), np.int64),
        label_names=("x", "y"),
    )


def ngrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 8]) for at in range(len(words) - 7)}


@given(train=TEXTS, test=TEXTS)
def test_exact_and_8_gram_leaks_follow_their_definition(train: list[str], test: list[str]) -> None:
    found = find_leaks(items_of(train), items_of([text.upper() + "!" for text in test]))
    known = set().union(*map(ngrams, train))
    assert found.exact.tolist() == [text in train for text in test]
    assert found.by_ngrams.tolist() == [
        bool(own := ngrams(text)) and len(own & known) >= 0.5 * len(own) for text in test
    ]
    assert found.long_enough.tolist() == [len(text.split()) >= 8 for text in test]


@given(texts=TEXTS, documents=TEXTS, at_once=st.integers(1, 40))
def test_what_stands_in_documents_follows_its_definition(texts: list[str], documents: list[str], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaks, "_COMPARED_AT_ONCE", at_once)
        found = found_in_documents([text.upper() + "!" for text in texts], iter(documents))
    known = set().union(*map(ngrams, documents))
    assert found.tolist() == [
        text in documents or (bool(own := ngrams(text)) and len(own & known) >= 0.5 * len(own)) for text in texts
    ]
    assert not found_in_documents(texts, []).any()


@given(texts=TEXTS, held_out=TEXTS)
def test_what_is_kept_for_pretraining_gives_no_held_out_text_away(texts: list[str], held_out: list[str]) -> None:
    kept, dropped = without_items(texts, held_out)
    assert sorted(kept + dropped) == sorted(texts)
    if kept:
        assert not find_leaks(items_of(kept), items_of(held_out)).leaked.any()
    assert not set(kept) & set(held_out)


def test_a_held_out_text_inside_a_long_one_is_found() -> None:
    chapter = f"It was a dark and stormy night. {LONG.title()}; and so on, for many more words than the item has."
    kept, dropped = without_items([chapter, "another text entirely"], [LONG])
    assert (kept, dropped) == (["another text entirely"], [chapter])


def test_pieces_of_a_held_out_text_are_dropped_together() -> None:
    words = LONG.split()
    pieces = [" ".join(words[:10]) + " x y z u v w q r s t", "k l m n o p q r s t u v w " + " ".join(words[10:])]
    assert without_items(pieces, [LONG]) == ([], pieces)


def test_unrelated_texts_are_kept() -> None:
    assert without_items([LONG, "b"], ["c"]) == ([LONG, "b"], [])
    assert without_items([], ["c"]) == ([], [])
    assert without_items(["a"], []) == (["a"], [])


def test_nearly_equal_is_a_leak_and_half_equal_is_not() -> None:
    middle = find_leaks(items_of(["first one", LONG]), items_of([LONG.replace("wizards", "witches"), "unrelated"]))
    assert not middle.leaked.any()  # Jaccard 12/22, and 6 of 14 runs of eight words
    longer = f"{LONG} and all of them are quite content with the way that things have turned out for them this year"
    found = find_leaks(items_of(["first one", longer]), items_of([f"{longer} again", "unrelated"]))
    assert found.near.tolist() == [True, False]
    assert found.source.tolist() == [1, -1]
    assert found.finding.examples[0]["train"].startswith("the quick brown fox")


def test_conflicting_labels_of_shared_texts() -> None:
    found = find_leaks(items_of(["one", "two", "two"], [0, 0, 1]), items_of(["One", "TWO", "three"], [1, 1, 0]))
    assert found.exact.tolist() == [True, True, False]
    assert found.conflicting is not None
    assert found.conflicting.tolist() == [True, False, False]


def test_movie_reviews_hold_most_of_sst2(rung_data: Path) -> None:
    """72.9 % word for word, 1,523 of 1,596 by 8-grams, 3.5 % with other labels, if words are ASCII.

    Here a word may hold any letter, and the two sets garble accents differently, so a few sentences are not equal.
    """
    train = read_labelled(rung_data / "mr" / "all.jsonl").items
    test = read_labelled(rung_data / "sst" / "sst2.test.jsonl").items
    found = find_leaks(train, test)
    assert found.exact.mean() == pytest.approx(0.729, abs=0.005)
    assert int(found.long_enough.sum()) == 1596
    assert found.by_ngrams.sum() / found.long_enough.sum() == pytest.approx(0.954, abs=0.001)
    assert found.conflicting is not None
    assert found.conflicting.sum() / found.exact.sum() == pytest.approx(0.035, abs=0.001)
    with pytest.raises(DataError, match=r"of the test items are in training") as caught:
        require_no_leaks(found, allow=False)
    assert "allow" in str(caught.value)
    require_no_leaks(found, allow=True)
    assert not found.finding.passed


def test_trec_leaks_a_little_and_goes_on(rung_data: Path) -> None:
    train, test = (read_labelled(rung_data / "trec" / f"{part}.jsonl").items for part in ("train", "test"))
    found = find_leaks(train, test)
    assert found.exact.mean() == pytest.approx(0.022)
    require_no_leaks(found, allow=False)
    assert found.finding.passed


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.lists(st.integers(0, 2**64 - 1), max_size=30), st.data())
def test_membership_of_hashes_equals_that_of_sets(some: list[int], others: list[int], data: st.DataObject) -> None:
    shared = data.draw(st.lists(st.sampled_from(others), max_size=5)) if others else []
    asked = [*some, *shared]
    found = is_among(np.array(asked, np.uint64), np.array(others, np.uint64))
    assert found.tolist() == [one in set(others) for one in asked]
