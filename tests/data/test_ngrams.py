"""Words and n-grams against their scalar definitions and scikit-learn's vectoriser."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from rung.data import ngrams
from rung.data.ngrams import (
    UNKNOWN,
    Counts,
    HashedNgramFinder,
    HashedNgrams,
    NgramCounter,
    NgramVocabulary,
    WordNumbers,
    distinct_words,
    words_of,
)

# Small alphabets make repeated n-grams; İ and ẞ change length when lower-cased, Σ has two small forms.
TEXTS = st.lists(st.text("abAB İẞΣ.\t\n\x1c\u2003\u200b", max_size=20), max_size=8)
END = "</s>"
ANY_TEXTS = st.lists(st.text(max_size=12), max_size=5)


def grams(text: str, order: int) -> list[tuple[str, ...]]:
    """The n-grams of up to `order` words of one text, by definition."""
    words = words_of(text)
    return [tuple(words[i : i + n]) for n in range(1, order + 1) for i in range(len(words) - n + 1)]


def spelled(vocabulary: NgramVocabulary) -> list[tuple[str, ...]]:
    """The n-gram of each column."""
    below = columns = [(word,) for word in vocabulary.words]
    for known in vocabulary.keys:
        prefixes, words = np.divmod(known, max(len(vocabulary.words), 1))
        below = [(*below[p], vocabulary.words[w]) for p, w in zip(prefixes, words, strict=True)]
        columns = columns + below
    return columns


def rows_of(counts: Counts, names: list[tuple[str, ...]]) -> list[dict[tuple[str, ...], int]]:
    ends = np.cumsum(counts.lengths)
    pairs = list(zip([names[c] for c in counts.columns], counts.counts.tolist(), strict=True))
    return [dict(pairs[end - length : end]) for end, length in zip(ends, counts.lengths, strict=True)]


@given(TEXTS, TEXTS, st.integers(1, 3))
def test_counts_equal_their_definition(training: list[str], texts: list[str], order: int) -> None:
    vocabulary = NgramVocabulary.learn(training, order)
    names = spelled(vocabulary)
    known = {gram for text in training for gram in grams(text, order)}
    assert len(names) == len(vocabulary) == len(known)
    assert set(names) == known
    expected = [Counter(gram for gram in grams(text, order) if gram in known) for text in texts]
    assert rows_of(NgramCounter(vocabulary)(texts), names) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Not good, is it?<br />NO...",
            ["not", "good", ",", "is", "it", "?", "<", "br", "/", ">", "no", ".", ".", "."],
        ),
        ("l'été « là-bas »", ["l", "'", "été", "«", "là", "-", "bas", "»"]),
        ("हिन्दी में।", ["हिन्दी", "में", "।"]),  # vowel signs are parts of words
        ("好，谢谢。", ["好", "，", "谢谢", "。"]),
        (" \t\u2003\n", []),
    ],
)
def test_punctuation_parts_words_and_vowel_signs_do_not(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.text(max_size=40))
def test_words_leave_out_nothing_but_white_space(text: str) -> None:
    assert "".join(words_of(text)) == "".join(text.lower().split())


@given(ANY_TEXTS, ANY_TEXTS)
def test_words_are_numbered_in_any_script(training: list[str], texts: list[str]) -> None:
    words = distinct_words(training)
    assert words == sorted({word for text in training for word in words_of(text)})
    numbers = WordNumbers(words)(texts)
    expected = [[words.index(w) if w in words else UNKNOWN for w in words_of(text)] for text in texts]
    assert numbers.values.tolist() == [number for row in expected for number in row]
    assert numbers.lengths.tolist() == [len(row) for row in expected]


@given(TEXTS, st.integers(1, 3), st.randoms())
def test_what_is_learned_does_not_depend_on_the_order_of_texts(
    texts: list[str], order: int, random: np.random.Generator
) -> None:
    shuffled = list(texts)
    random.shuffle(shuffled)  # type: ignore[arg-type]
    first, second = NgramVocabulary.learn(texts, order), NgramVocabulary.learn(shuffled, order)
    assert spelled(first) == spelled(second)
    one, other = HashedNgrams.learn(texts, order, 97), HashedNgrams.learn(shuffled, order, 97)
    assert one.words == other.words
    assert one.buckets.tolist() == other.buckets.tolist()


def test_chunks_of_texts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a b a", "", "c", "b c d e", "a"]
    whole = NgramCounter(NgramVocabulary.learn(texts, 2))(texts)
    monkeypatch.setattr(ngrams, "_CHUNK_CHARACTERS", 4)
    parts = NgramCounter(NgramVocabulary.learn(texts, 2))(texts)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_counts_equal_scikit_learn() -> None:
    texts = ["The cat sat on the mat .", "the DOG sat", "", "on on on the the cat"]
    vectorizer = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, 2))  # noqa: S106 - no password
    dense = vectorizer.fit_transform(texts).toarray()
    vocabulary = NgramVocabulary.learn(texts, 2)
    ours = rows_of(NgramCounter(vocabulary)(texts), spelled(vocabulary))
    names = [tuple(name.split()) for name in vectorizer.get_feature_names_out()]
    assert ours == [{names[c]: int(n) for c, n in enumerate(row) if n} for row in dense]


@given(TEXTS, st.integers(1, 3), st.data())
def test_taking_columns_keeps_those_whose_parts_are_kept(texts: list[str], order: int, data: st.DataObject) -> None:
    vocabulary = NgramVocabulary.learn(texts, order)
    names = spelled(vocabulary)
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names))), np.bool_)
    wanted = {name for name, keep in zip(names, kept, strict=True) if keep}
    whole = {n for n in wanted if all(n[:k] in wanted for k in range(1, len(n))) and all((w,) in wanted for w in n)}
    assert set(spelled(vocabulary.take(kept))) == whole


@given(TEXTS, TEXTS)
def test_hashed_ngrams_are_words_the_end_and_known_pairs(training: list[str], texts: list[str]) -> None:
    words = {word for text in training for word in words_of(text)}
    pairs = {pair for text in training for pair in pairwise([*words_of(text), END])}
    hashed = HashedNgrams.learn(training, 2, 1 << 22)  # so many buckets that these few pairs do not meet
    assert len(hashed) == len(words) + 1 + len(pairs)
    bags = HashedNgramFinder(hashed)(texts)
    expected = []
    for text in texts:
        known = [word for word in words_of(text) if word in words]
        found = [pair for pair in pairwise([*words_of(text), END]) if pair in pairs]
        expected.append(len(known) + 1 + len(found) if known else 0)
    assert bags.lengths.tolist() == expected
    assert len(bags.values) == sum(expected)


def test_hash_collisions_share_a_row() -> None:
    texts = [" ".join(f"w{i}" for i in range(200))]
    hashed = HashedNgrams.learn(texts, 2, 16)
    assert hashed.buckets.tolist() == list(range(16))
    bags = HashedNgramFinder(hashed)(texts)
    assert bags.lengths.tolist() == [200 + 1 + 200]
    assert bags.values.max() == len(hashed) - 1
