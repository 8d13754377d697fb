from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.corpus import CorpusOptions, prepare_corpus
from rung.data.ngrams import words_of
from rung.data.word_corpus import LINE_END, VocabularyRules, WordCorpus, _words_and_breaks, word_corpus
from rung.errors import DataError, UsageError

EVERY_WORD = VocabularyRules(min_count=1)
FILLER = "completely different sentences stand here so that a document is left for validation, number "


def numbered(folder: Path, *documents: str, rules: VocabularyRules = EVERY_WORD) -> WordCorpus:
    """The word corpus of some documents; a validation file of its own keeps all of them for training."""
    for number, document in enumerate(documents):
        (folder / f"{number}.txt").write_text(document, encoding="utf-8")
    valid = folder / "valid.txt"
    valid.write_text(f"{FILLER} one.", encoding="utf-8")
    corpus = prepare_corpus(
        [folder / f"{number}.txt" for number in range(len(documents))],
        cache_dir=folder / "cache",
        valid_paths=[valid],
        options=CorpusOptions(),
    )
    return word_corpus(corpus, rules, cache_dir=folder / "cache")


def lines(words: WordCorpus) -> list[list[str]]:
    ends = np.flatnonzero(words.stream == LINE_END)
    return [[words.words[number] for number in part if number >= 0] for part in np.split(words.stream, ends + 1)[:-1]]


def test_words_are_numbered_by_falling_frequency_and_lines_end_at_blank_lines(tmp_path: Path) -> None:
    found = numbered(tmp_path, "The cat saw\nthe dog.\n\nThe dog, however, ran!\n \nA cat.\n")
    assert found.words[:3] == ["the", "cat", "dog"]
    assert found.counts.tolist() == [3, 2, 2, 1, 1, 1, 1]
    assert lines(found) == [["the", "cat", "saw", "the", "dog"], ["the", "dog", "however", "ran"], ["a", "cat"]]
    assert (found.raw_words, found.kept_words, found.lines) == (11, 11, 3)


def test_rare_words_leave_the_stream_but_not_the_count_of_the_text(tmp_path: Path) -> None:
    text = "red blue red blue green\n\nonce\n\nred blue green"
    found = numbered(tmp_path, text, rules=VocabularyRules(min_count=2))
    assert found.words == ["blue", "red", "green"]
    assert lines(found) == [["red", "blue", "red", "blue", "green"], ["red", "blue", "green"]]
    assert (found.raw_words, found.kept_words) == (9, 8)
    few = numbered(tmp_path, text, rules=VocabularyRules(min_count=1, max_words=2))
    assert few.words == ["blue", "red"]
    assert few.raw_words == 9


def test_case_is_kept_when_asked(tmp_path: Path) -> None:
    found = numbered(tmp_path, "Apple apple Apple pie", rules=VocabularyRules(lowercase=False, min_count=1))
    assert found.words == ["Apple", "apple", "pie"]


def test_emoji_and_right_to_left_words_are_words(tmp_path: Path) -> None:
    found = numbered(tmp_path, "👩‍🚀 flies 👩‍🚀 שלום עולם, שלום! مرحبا، naïve")
    assert set(found.words) == {"👩‍🚀", "flies", "שלום", "עולם", "مرحبا", "naïve"}
    assert found.counts[found.words.index("שלום")] == 2


def test_a_second_reading_comes_from_the_cache_and_damage_is_repaired(tmp_path: Path) -> None:
    first = numbered(tmp_path, "one two three one two")
    stream = next((tmp_path / "cache" / "shards").glob("words-*/stream.bin"))
    before = stream.stat().st_mtime_ns
    assert numbered(tmp_path, "one two three one two").sha256 == first.sha256
    assert stream.stat().st_mtime_ns == before
    stream.write_bytes(b"\0" * stream.stat().st_size)
    again = numbered(tmp_path, "one two three one two")
    assert again.sha256 == first.sha256
    assert lines(again) == [["one", "two", "three", "one", "two"]]


def test_one_word_and_lines_of_one_word_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"only 1 word occurs at least 1 times \(4 words in all, 1 different"):
        numbered(tmp_path, "same same same same")
    with pytest.raises(DataError, match="only 0 word"):
        numbered(tmp_path, "every word once", rules=VocabularyRules(min_count=5))
    with pytest.raises(DataError, match="no line of the text holds two words"):
        numbered(tmp_path, "one\n\ntwo\n\none\n\ntwo")


def test_rules_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="min_count is 0"):
        VocabularyRules(min_count=0)
    with pytest.raises(UsageError, match="max_words is 1"):
        VocabularyRules(max_words=1)


@given(st.text(st.sampled_from("ab é\n.,'—👍\u05d0\t\r"), max_size=60))
def test_words_are_those_of_the_bag_of_words_without_its_marks(text: str) -> None:
    words = [word for word in _words_and_breaks(text.lower()) if word != "\n\n"]
    marks = set(".,'—")
    assert words == [word for word in words_of(text) if word not in marks]
