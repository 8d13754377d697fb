"""Word vectors as an artefact, against gensim's lookups and fastText's hash."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.errors import DataError, RunFolderError
from rung.nets.word_vectors import Subwords, WordVectors, ngram_buckets

RANDOM = np.random.default_rng(1)
WORDS = [f"word{number}" for number in range(300)]
VECTORS = RANDOM.normal(size=(300, 12)).astype(np.float32)
COUNTS = np.arange(300, 0, -1, dtype=np.int64)


def with_subwords() -> WordVectors:
    grams = RANDOM.normal(size=(50, 12)).astype(np.float32)
    return WordVectors(WORDS, VECTORS, COUNTS, Subwords(3, 6, grams), model_type="rung-fasttext-vectors")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.integers(1, 3), st.integers(3, 6))
def test_ngrams_fall_into_fasttexts_buckets(word: str, min_n: int, max_n: int) -> None:
    fasttext = pytest.importorskip("gensim.models.fasttext")
    theirs = [int(bucket) for bucket in fasttext.ft_ngram_hashes(word, min_n, max_n, 2_000_003)]
    assert ngram_buckets(word, min_n=min_n, max_n=max_n, buckets=2_000_003) == theirs


def test_neighbours_and_analogies_are_gensims() -> None:
    models = pytest.importorskip("gensim.models")
    theirs = models.KeyedVectors(12)
    theirs.add_vectors(WORDS, VECTORS)
    ours = WordVectors(WORDS, VECTORS)
    for word in WORDS[:20]:
        found, expected = ours.neighbours(word, 7), theirs.most_similar(word, topn=7)
        assert [one.word for one in found] == [other for other, _ in expected]
        np.testing.assert_allclose([one.similarity for one in found], [value for _, value in expected], atol=1e-6)
    for a, b, c in zip(WORDS, WORDS[40:60], WORDS[100:], strict=False):
        expected = theirs.most_similar(positive=[b, c], negative=[a], topn=5)
        assert [one.word for one in ours.analogy(a, b, c, 5)] == [other for other, _ in expected]


def test_many_analogies_at_once_are_the_single_ones() -> None:
    ours = WordVectors(WORDS, VECTORS)
    questions = RANDOM.permuted(np.tile(np.arange(300), (40, 1)), axis=1)[:, :3]
    answers = ours.analogies(questions, 3)
    for question, answer in zip(questions, answers, strict=True):
        single = ours.analogy(*(WORDS[row] for row in question), k=3)
        assert [WORDS[row] for row in answer] == [one.word for one in single]
    assert (ours.analogies(questions, among=50) < 50).all()


def test_words_never_seen_get_the_mean_of_their_ngrams() -> None:
    ours = with_subwords()
    assert ours.subwords is not None
    buckets = ngram_buckets("unseen", min_n=3, max_n=6, buckets=50)
    np.testing.assert_allclose(ours.vector("unseen"), ours.subwords.vectors[buckets].mean(axis=0), rtol=1e-5)
    assert "unseen" not in ours
    assert len(ours.neighbours("unseen", 4)) == 4
    with pytest.raises(DataError):
        ours.vector("")  # `<>` is shorter than any n-gram


def test_a_folder_gives_back_what_was_saved(tmp_path: Path) -> None:
    for vectors in (with_subwords(), WordVectors(["a", "b c", "🙂", "\ud800"], VECTORS[:4], model_type="rung-glove")):
        vectors.save(tmp_path)
        loaded = WordVectors.load(tmp_path)
        assert loaded.words == vectors.words
        assert loaded.model_type == vectors.model_type
        np.testing.assert_array_equal(loaded.vectors, vectors.vectors)
        if vectors.subwords is not None and vectors.counts is not None:
            np.testing.assert_array_equal(loaded.counts, vectors.counts)
            np.testing.assert_array_equal(loaded.vector("unseen"), vectors.vector("unseen"))
        else:
            assert loaded.subwords is None
            assert loaded.counts is None


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors", "vocabulary.json"])
@pytest.mark.parametrize("how", ["missing", "cut"])
def test_a_damaged_folder_is_refused(tmp_path: Path, broken: str, how: str) -> None:
    with_subwords().save(tmp_path)
    if how == "missing":
        (tmp_path / broken).unlink()
    else:
        (tmp_path / broken).write_bytes((tmp_path / broken).read_bytes()[:-3])
    with pytest.raises(RunFolderError, match="cannot be read"):
        WordVectors.load(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with_subwords().save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(RunFolderError, match="holds no word vectors"):
        WordVectors.load(tmp_path)


def test_what_cannot_be_vectors_is_refused() -> None:
    bad = VECTORS[:3].copy()
    bad[1, 2] = np.nan
    with pytest.raises(DataError, match="1 vectors hold values that are not finite, the first that of 'b'"):
        WordVectors(["a", "b", "c"], bad)
    with pytest.raises(DataError, match="'a' is there twice"):
        WordVectors(["a", "b", "a"], VECTORS[:3])
    with pytest.raises(DataError, match="2 words and 3 vectors"):
        WordVectors(["a", "b"], VECTORS[:3])
    with pytest.raises(DataError, match="no word vectors"):
        WordVectors([], VECTORS[:0])
    with pytest.raises(DataError, match="2 words and 3 counts"):
        WordVectors(["a", "b"], VECTORS[:2], COUNTS[:3])


def test_an_unknown_word_suggests_a_close_one() -> None:
    ours = WordVectors(["paris", "london", "new_york"], VECTORS[:3])
    with pytest.raises(DataError, match="'pariss' is not among the 3 words; did you mean 'paris'"):
        ours.neighbours("pariss")
    with pytest.raises(DataError, match="did you mean 'paris'"):
        ours.neighbours("Paris")
    with pytest.raises(DataError, match="did you mean 'new_york'") as caught:
        ours.analogy("paris", "london", "new york")
    assert "without spaces" in str(caught.value)


def test_one_word_alone_and_a_vector_of_zeros() -> None:
    alone = WordVectors(["only"], VECTORS[:1])
    assert alone.neighbours("only") == []
    with_zeros = WordVectors(["zero", "one"], np.array([[0, 0], [1, 2]], dtype=np.float32))
    assert with_zeros.neighbours("zero") == [("one", 0.0)]
