from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gensim.models import FastText, Word2Vec
from gensim.models.fasttext import ft_ngram_hashes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from rung.data.word_corpus import LINE_END, WordCorpus
from rung.errors import RunFolderError, TrainingError, UsageError
from rung.nets.word_vectors import ngram_buckets
from rung.training.word2vec.chances import huffman_paths, keep_chances, make_draws, subword_rows
from rung.training.word2vec.kernels import draw_negative
from rung.training.word2vec.trainer import NgramSettings, Word2VecSettings, Word2VecTrainer

DIMENSIONS = 12
RATE = 1e-4
WORDS = ["rare", "apple", "pear", "plum"]
VARIANTS: dict[str, dict[str, Any]] = {
    "skip-gram": {},
    "skip-gram, own negatives": {"shared_negatives": False},
    "skip-gram, hierarchical": {"negatives": 0},
    "cbow": {"architecture": "cbow"},
    "cbow, hierarchical": {"architecture": "cbow", "negatives": 0},
    "subwords": {"ngrams": NgramSettings(3, 4, 50)},
    "subwords, cbow": {"ngrams": NgramSettings(3, 4, 50), "architecture": "cbow"},
}
SMALL = Word2VecSettings(vector_size=DIMENSIONS, subsample=0.0, epochs=3)


def corpus_of(words: list[str], counts: list[int], *lines: list[int]) -> WordCorpus:
    stream = np.array([number for line in lines for number in [*line, LINE_END]], np.int32)
    return WordCorpus(words, np.array(counts, np.int64), stream, int((stream >= 0).sum()), len(lines), "a hash")


def two_topics(lines: int = 300) -> WordCorpus:
    """Ten words of one topic or ten of another in each line."""
    random = np.random.default_rng(0)
    drawn = [(random.integers(0, 10, 12) + 10 * (number % 2)).tolist() for number in range(lines)]
    counts = np.bincount(np.concatenate(drawn), minlength=20)
    order = np.argsort(-counts, kind="stable")
    number = np.argsort(order)
    words = [f"{'ab'[place // 10]}{place}" for place in order.tolist()]
    return corpus_of(words, counts[order].tolist(), *[number[line].tolist() for line in drawn])


def trained(corpus: WordCorpus, wanted: Word2VecSettings, threads: int = 1) -> Word2VecTrainer:
    trainer = Word2VecTrainer(corpus, wanted, threads=threads)
    while not trainer.is_done:
        trainer.run()
    return trainer


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "subwords"])
def test_one_step_moves_all_vectors_as_gensims_does(variant: str) -> None:
    """A line of three words at a window of one, where the only negative that can be drawn is the first word."""
    counts = [1_000_000_000, 20, 5, 4]
    wanted = replace(
        SMALL, window=1, exponent=4.0, epochs=1, learning_rate=RATE, final_learning_rate=RATE, **VARIANTS[variant]
    )
    trainer = Word2VecTrainer(corpus_of(WORDS, counts, [1, 2, 3]), wanted)
    random = np.random.default_rng(1)
    inputs, outputs = (matrix[:, :DIMENSIONS] for matrix in trainer.matrices)
    inputs[:] = random.normal(size=inputs.shape) * 0.3
    outputs[:] = random.normal(size=outputs.shape) * 0.3
    model = gensim_model(wanted, dict(zip(WORDS, counts, strict=True)), inputs, outputs)
    before = inputs.copy(), outputs.copy()
    trainer.run()
    model.train([WORDS[1:]], total_examples=1, total_words=3, epochs=1, start_alpha=RATE, end_alpha=RATE)
    theirs = gensim_inputs(model), model.syn1neg if wanted.negatives else model.syn1
    for ours, own, first in zip((inputs, outputs), theirs, before, strict=True):
        rows = len(own)  # gensim's tree has one inner node less than there are words, ours a row to spare
        step = (own - first[:rows]) / RATE
        # Its sigmoid is a table of 1,000 steps that it enters up to four steps too low (1000 / 6 / 2 in whole numbers).
        assert np.abs(step).max() > 0.1
        np.testing.assert_allclose((ours - first)[:rows] / RATE, step, atol=0.03 * np.abs(step).max())


def test_one_step_of_subwords_is_that_of_the_definition() -> None:
    """Not gensim's: its skip-gram divides the sum over a word and its n-grams by the number of n-grams alone."""
    wanted = replace(
        SMALL, window=1, exponent=4.0, epochs=1, learning_rate=RATE, final_learning_rate=RATE, **VARIANTS["subwords"]
    )
    trainer = Word2VecTrainer(corpus_of(WORDS, [10**9, 20, 5, 4], [1, 2]), wanted)
    random = np.random.default_rng(1)
    inputs, outputs = (matrix[:, :DIMENSIONS] for matrix in trainer.matrices)
    inputs[:], outputs[:] = random.normal(size=inputs.shape), random.normal(size=outputs.shape) * 0.3
    before = inputs.copy(), outputs.copy()
    steps = np.zeros(inputs.shape), np.zeros(outputs.shape)
    for centre, around in ((1, 2), (2, 1)):
        buckets = ngram_buckets(WORDS[around], min_n=3, max_n=4, buckets=50)
        rows = [around, *(bucket + len(WORDS) for bucket in buckets)]
        x = before[0][rows].mean(axis=0)
        for output, label, times in ((centre, 1.0, 1), (0, 0.0, wanted.negatives)):
            gradient = times * (label - 1 / (1 + np.exp(-x @ before[1][output])))
            np.add.at(steps[0], rows, gradient * before[1][output])
            steps[1][output] += gradient * x
    trainer.run()
    for ours, first, step in zip((inputs, outputs), before, steps, strict=True):
        np.testing.assert_allclose((ours - first) / RATE, step, atol=0.01 * np.abs(step).max())


def gensim_model(wanted: Word2VecSettings, counts: dict[str, int], inputs: Any, outputs: Any) -> Any:
    common: dict[str, Any] = {
        "vector_size": DIMENSIONS,
        "window": wanted.window,
        "min_count": 1,
        "sample": 0,
        "workers": 1,
        "sg": int(wanted.architecture == "skip-gram"),
        "hs": int(not wanted.negatives),
        "negative": wanted.negatives,
    }
    if wanted.ngrams:
        grams = wanted.ngrams
        model = FastText(**common, min_n=grams.min_n, max_n=grams.max_n, bucket=grams.buckets)
    else:
        model = Word2Vec(**common)
    model.build_vocab_from_freq(counts)
    words = len(counts)
    if wanted.ngrams:
        model.wv.vectors_vocab[:], model.wv.vectors_ngrams[:] = inputs[:words], inputs[words:]
    else:
        model.wv.vectors[:] = inputs
    if wanted.negatives:
        model.syn1neg[:] = outputs
        model.cum_table[:] = 2**31 - 1
    else:
        model.syn1[:] = outputs[: len(model.syn1)]
    return model


def gensim_inputs(model: Any) -> Any:
    if isinstance(model, FastText):
        return np.concatenate([model.wv.vectors_vocab, model.wv.vectors_ngrams])
    return model.wv.vectors


@pytest.mark.parametrize("negatives", [1, 5, 11])
def test_the_loss_is_that_of_the_definition(negatives: int) -> None:
    wanted = replace(SMALL, window=1, exponent=4.0, epochs=1, negatives=negatives, learning_rate=1e-9)
    trainer = Word2VecTrainer(corpus_of(WORDS, [10**9, 9, 5, 4], [1, 2]), wanted)
    inputs, outputs = (matrix[:, :DIMENSIONS] for matrix in trainer.matrices)
    random = np.random.default_rng(2)
    inputs[:], outputs[:] = random.normal(size=inputs.shape), random.normal(size=outputs.shape)
    outputs[0] *= 4  # scores beyond the table's ends
    expected = 0.0
    for centre, around in ((1, 2), (2, 1)):
        scores = outputs.astype(np.float64) @ inputs[around]
        expected += np.log1p(np.exp(-scores[centre])) + negatives * np.log1p(np.exp(scores[0]))
    trainer.run()
    assert trainer.done.epochs[0].pairs == 2
    assert trainer.done.epochs[0].loss == pytest.approx(expected / 2, rel=0.01)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_loss_falls_and_words_of_a_topic_come_together(variant: str) -> None:
    corpus = two_topics()
    trainer = trained(corpus, replace(SMALL, epochs=6, learning_rate=0.1, **VARIANTS[variant]))
    losses = [epoch.loss for epoch in trainer.done.epochs]
    assert losses[-1] < losses[0]
    vectors = trainer.vectors()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    same = np.equal.outer(*[[word[0] for word in corpus.words]] * 2)
    assert alike[same].mean() > alike[~same].mean() + 0.2


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_one_thread_gives_equal_bits_twice_and_after_an_interruption(variant: str, tmp_path: Path) -> None:
    corpus, wanted = two_topics(), replace(SMALL, subsample=1e-2, **VARIANTS[variant])
    whole, again = trained(corpus, wanted), trained(corpus, wanted)
    np.testing.assert_array_equal(whole.vectors(), again.vectors())
    assert whole.done.epochs == again.done.epochs
    asked = iter(range(1000))
    part = Word2VecTrainer(corpus, wanted)
    while part.done.chunks < part.chunks_per_epoch + 1:
        part.run(until=lambda: next(asked) > part.chunks_per_epoch)
    assert 0 < part.done.epochs[1].chunks < part.chunks_per_epoch
    part.save(tmp_path / "state")
    resumed = Word2VecTrainer(corpus, wanted)
    resumed.restore(tmp_path / "state")
    while not resumed.is_done:
        resumed.run()
    np.testing.assert_array_equal(whole.vectors(), resumed.vectors())
    np.testing.assert_array_equal(whole.ngram_vectors(), resumed.ngram_vectors())
    assert whole.done.epochs == resumed.done.epochs
    other = trained(corpus, replace(wanted, seed=1))
    assert not np.array_equal(whole.vectors(), other.vectors())


def test_two_threads_train_on_every_word_once() -> None:
    corpus = two_topics()
    one, two = trained(corpus, SMALL), trained(corpus, SMALL, threads=2)
    assert [epoch.pairs for epoch in two.done.epochs] == [epoch.pairs for epoch in one.done.epochs]
    assert two.done.epochs[-1].loss == pytest.approx(one.done.epochs[-1].loss, rel=0.05)
    assert one.words_per_second > 0


def test_padding_stays_zero() -> None:
    for matrix in trained(two_topics(), SMALL).matrices:
        assert not matrix[:, DIMENSIONS:].any()
        assert matrix.ctypes.data % 64 == 0


def test_the_state_of_another_training_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    corpus = two_topics()
    trained(corpus, SMALL).save(tmp_path / "state")
    with pytest.raises(RunFolderError, match="another training: settings differ"):
        Word2VecTrainer(corpus, replace(SMALL, seed=5)).restore(tmp_path / "state")
    with pytest.raises(RunFolderError, match="another training: corpus differ"):
        Word2VecTrainer(replace(corpus, sha256="another"), SMALL).restore(tmp_path / "state")
    (tmp_path / "state" / "state.safetensors").write_bytes(b"short")
    with pytest.raises(RunFolderError, match="bytes where"):
        Word2VecTrainer(corpus, SMALL).restore(tmp_path / "state")


def test_a_learning_rate_that_explodes_is_told() -> None:
    with pytest.raises(TrainingError, match="the loss of epoch 1 is no number"):
        trained(two_topics(), replace(SMALL, learning_rate=1e30))


@pytest.mark.parametrize("wrong", [{"window": 0}, {"epochs": 0}, {"negatives": -1}, {"learning_rate": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        replace(SMALL, **wrong)


def test_ngrams_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="5 to 3"):
        NgramSettings(5, 3)
    with pytest.raises(UsageError, match="bucket"):
        NgramSettings(buckets=0)


def test_codes_are_those_of_gensims_huffman_tree() -> None:
    random = np.random.default_rng(0)
    counts = np.sort(random.choice(10**6, 200, replace=False) + 1)[::-1].astype(np.int64)  # no two alike: one tree
    paths = huffman_paths(counts)
    model = Word2Vec(hs=1, negative=0, min_count=1, vector_size=4)
    model.build_vocab_from_freq({str(word): int(count) for word, count in enumerate(counts)})
    for word in range(len(counts)):
        place = slice(paths.starts[word], paths.starts[word + 1])
        assert (1 - paths.labels[place]).tolist() == model.wv.get_vecattr(str(word), "code").tolist()
        assert paths.nodes[place].tolist() == model.wv.get_vecattr(str(word), "point").tolist()


@given(st.lists(st.integers(1, 50), min_size=2, max_size=40))
def test_codes_are_a_prefix_code_that_fills_the_tree(drawn: list[int]) -> None:
    counts = np.array(sorted(drawn, reverse=True), np.int64)
    paths = huffman_paths(counts)
    lengths = np.diff(paths.starts)
    assert (0.5**lengths).sum() == 1.0  # Kraft's equality
    assert paths.nodes.min() >= 0
    assert paths.nodes.max() == len(counts) - 2
    codes = {tuple(paths.labels[paths.starts[word] : paths.starts[word + 1]]) for word in range(len(counts))}
    assert len(codes) == len(counts)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=5), st.integers(1, 4), st.integers(0, 3))
@settings(max_examples=60)
def test_ngrams_have_the_buckets_of_fasttext(words: list[str], min_n: int, more: int) -> None:
    max_n, buckets = min_n + more, 997
    found = subword_rows(words, min_n=min_n, max_n=max_n, buckets=buckets)
    for number, word in enumerate(words):
        rows = found.rows[found.starts[number] : found.starts[number + 1]]
        expected = ngram_buckets(word, min_n=min_n, max_n=max_n, buckets=buckets)
        assert rows.tolist() == [number, *(bucket + len(words) for bucket in expected)]
        if min_n > 1:  # gensim keeps the boundary signs alone as n-grams of one character, fastText does not
            theirs = ft_ngram_hashes(word, min_n, max_n, buckets)
            assert sorted(rows[1:] - len(words)) == sorted(theirs)


def test_frequent_words_are_kept_by_gensims_chances() -> None:
    counts = np.array([50_000, 9_000, 800, 70, 6], np.int64)
    model = Word2Vec(sample=1e-3, min_count=1, vector_size=4)
    model.build_vocab_from_freq({str(word): int(count) for word, count in enumerate(counts)})
    theirs = [model.wv.get_vecattr(str(word), "sample_int") / 2**32 for word in range(len(counts))]
    np.testing.assert_allclose(keep_chances(counts, 1e-3), theirs, rtol=1e-6)
    assert (keep_chances(counts, 0.0) == 1).all()


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=60), st.sampled_from([0.0, 0.75, 1.0]))
def test_the_alias_table_holds_the_wanted_chances(drawn: list[int], exponent: float) -> None:
    counts = np.array(drawn, np.int64)
    draws = make_draws(counts, subsample=0.0, exponent=exponent)
    stay = draws.stay / 2.0**32
    chances = stay / len(counts)
    np.add.at(chances, draws.alias, (1 - stay) / len(counts))
    weights = counts**exponent
    np.testing.assert_allclose(chances, weights / weights.sum(), atol=1e-8)


def test_negatives_are_drawn_by_their_chances() -> None:
    counts = np.array([4000, 900, 300, 60, 5], np.int64)
    draws = make_draws(counts, subsample=0.0, exponent=0.75)
    state, drawn = np.uint64(12345), []
    for _ in range(20_000):
        state, word = draw_negative(state, draws)
        state = np.uint64(state)
        drawn.append(word)
    expected = counts**0.75 / (counts**0.75).sum() * len(drawn)
    assert chisquare(np.bincount(drawn, minlength=5), expected).pvalue > 0.001
