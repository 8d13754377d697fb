"""Near-duplicates: the lookup finds what theory says, and what it drops really is alike."""

# ruff: noqa: S311 - test data, no secrets
from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.near_duplicates import (
    BANDS,
    ROWS,
    SHINGLE_WORDS,
    SIGNATURE_LENGTH,
    find_near_duplicates,
    fingerprints,
    jaccard,
    min_hash_signatures,
)


def fingerprints_of(texts: list[bytes]) -> np.ndarray:
    return fingerprints(b"".join(texts), np.cumsum([0, *map(len, texts)])).signatures


def met(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Which rows meet in at least one band."""
    bands = (left == right)[:, : BANDS * ROWS].reshape(len(left), BANDS, ROWS)
    return bands.all(axis=2).any(axis=1)


@pytest.mark.parametrize("shingles", [150, 600])
@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_hit_rate_is_the_one_of_theory(similarity: float, shingles: int) -> None:
    pairs = 4000
    rng = np.random.default_rng(int(1000 * similarity) + shingles)
    common = round(shingles * similarity)
    own = (shingles - common) // 2  # common / (common + 2 own) = similarity
    shared = rng.integers(0, 2**64, (pairs, common), dtype=np.uint64)
    sides = []
    for _ in range(2):
        hashes = np.concatenate([shared, rng.integers(0, 2**64, (pairs, own), dtype=np.uint64)], axis=1)
        owners = np.repeat(np.arange(pairs), hashes.shape[1])
        sides.append(min_hash_signatures(hashes.ravel(), owners, pairs)[0])
    exact = common / (common + 2 * own)
    assert (sides[0] == sides[1]).mean() == pytest.approx(exact, abs=0.01)
    expected = 1 - (1 - exact**ROWS) ** BANDS
    assert met(*sides).mean() == pytest.approx(expected, abs=0.03)


def words_of(text: bytes) -> list[bytes]:
    """The definition, written the slow way."""
    words: list[bytes] = []
    inside = False
    for character in text.decode():
        raw = character.encode()
        if len(raw) >= 3:
            words.append(raw)
            inside = True
        elif len(raw) > 1 or character.isalnum():
            if inside:
                words[-1] += raw.lower() if len(raw) == 1 else raw
            else:
                words.append(raw.lower() if len(raw) == 1 else raw)
            inside = True
        else:
            inside = False
    return words


def slow_jaccard(left: bytes, right: bytes) -> float:
    sets = []
    for text in (left, right):
        words = words_of(text)
        sets.append({tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)})
    union = sets[0] | sets[1]
    return len(sets[0] & sets[1]) / len(union) if union else 1.0


texts = st.lists(
    st.sampled_from(["rain", "Rain", "stone", "a", "extraordinarily", "naïve", "中文", "“", "-", "\n", "3"]),
    max_size=40,
).map(lambda words: " ".join(words).encode())


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_jaccard_equals_its_definition(pairs: list[tuple[bytes, bytes]]) -> None:
    left, right = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert jaccard(left, right).tolist() == pytest.approx([slow_jaccard(*pair) for pair in pairs])


@given(st.lists(texts, min_size=1, max_size=6))
def test_a_fingerprint_does_not_depend_on_the_neighbours(documents: list[bytes]) -> None:
    together = fingerprints(b"".join(documents), np.cumsum([0, *map(len, documents)]))
    for index, document in enumerate(documents):
        alone = fingerprints(document, np.array([0, len(document)]))
        assert (alone.signatures[0] == together.signatures[index]).all()
        assert alone.num_words[0] == together.num_words[index] == len(words_of(document))
        assert alone.word_sequence[0] == together.word_sequence[index]


def test_word_sequences_differ_with_order_and_agree_over_case_and_punctuation() -> None:
    documents = [b"rain on stone", b"Rain, on STONE!", b"stone on rain", b"rain on stones"]
    hashes = fingerprints(b"".join(documents), np.cumsum([0, *map(len, documents)])).word_sequence
    assert hashes[0] == hashes[1]
    assert len({int(value) for value in hashes}) == 3


def variants(seed: int, groups: int, copies: int) -> list[bytes]:
    """Groups of texts of 200 random words that differ in one word each."""
    rng = random.Random(seed)
    result = []
    for _ in range(groups):
        words = [str(rng.randrange(10**6)) for _ in range(200)]
        for copy in range(copies):
            changed = list(words)
            changed[rng.randrange(200)] = f"copy{copy}"
            result.append(" ".join(changed).encode())
    return result


def test_one_of_each_group_of_variants_is_left_and_it_is_the_lowest_ranked() -> None:
    documents = variants(seed=3, groups=30, copies=5)
    order = np.array(random.Random(4).sample(range(len(documents)), len(documents)))
    near = find_near_duplicates(
        np.array_split(fingerprints_of(documents), 4),
        eligible=np.ones(len(documents), bool),
        protected=np.zeros(len(documents), bool),
        rank=order,
        texts=lambda chosen: [documents[i] for i in chosen],
        threshold=0.8,
    )
    left = np.flatnonzero(near < 0)
    assert left.tolist() == [group * 5 + int(np.argmin(order[group * 5 : group * 5 + 5])) for group in range(30)]
    assert all(slow_jaccard(documents[i], documents[near[i]]) >= 0.8 for i in np.flatnonzero(near >= 0))


def test_protected_documents_stay_and_drop_others() -> None:
    documents = variants(seed=5, groups=1, copies=6)
    protected = np.array([False, True, True, False, False, False])
    near = find_near_duplicates(
        [fingerprints_of(documents)],
        eligible=np.ones(6, bool),
        protected=protected,
        rank=np.array([2, 0, 1, 3, 4, 5]),
        texts=lambda chosen: [documents[i] for i in chosen],
        threshold=0.8,
    )
    assert (near < 0).tolist() == protected.tolist()


def test_documents_below_the_threshold_stay() -> None:
    rng = random.Random(6)
    common = [str(rng.randrange(10**6)) for _ in range(100)]
    documents = [" ".join([*common, *(str(rng.randrange(10**6)) for _ in range(40))]).encode() for _ in range(40)]
    assert 0.5 < slow_jaccard(documents[0], documents[1]) < 0.6  # many of these pairs meet in a band
    near = find_near_duplicates(
        [fingerprints_of(documents)],
        eligible=np.ones(40, bool),
        protected=np.zeros(40, bool),
        rank=np.arange(40),
        texts=lambda chosen: [documents[i] for i in chosen],
        threshold=0.8,
    )
    assert (near < 0).all()


def test_trec_questions_hold_the_known_duplicates(rung_data: Path) -> None:
    """76 of the 5,452 training questions have the words of an earlier one (71 of them are equal to it)."""
    lines = (rung_data / "trec" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["text"].encode() for line in lines]
    sequences = fingerprints(b"".join(questions), np.cumsum([0, *map(len, questions)])).word_sequence
    slow = {b" ".join(words_of(question)) for question in questions}
    assert len(questions) - len(slow) == 76
    assert len(np.unique(sequences)) == len(slow)


def test_signature_shape() -> None:
    assert fingerprints(b"", np.array([0, 0])).signatures.shape == (1, SIGNATURE_LENGTH)
