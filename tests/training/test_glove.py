"""GloVe: counts against a loop over all pairs, the kernel against its equations, and resuming."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from rung.errors import DataError, RunFolderError, TrainingError, UsageError
from rung.training.glove import cooccurrences
from rung.training.glove.cooccurrences import Cooccurrences, count_cooccurrences
from rung.training.glove.kernels import fit
from rung.training.glove.trainer import Epoch, GloVeSettings, train_glove

RANDOM = np.random.default_rng(0)
STREAM = (RANDOM.zipf(1.3, 6000) % 61 - 1).astype(np.int32)  # with -1, the end of a line, now and then
VOCABULARY = 60


def by_hand(stream: list[int], window: int) -> dict[tuple[int, int], float]:
    """X of every unordered pair, from both sides, by the definition."""
    both = Counter[tuple[int, int]]()
    for place, word in enumerate(stream):
        for distance in range(1, window + 1):
            for other_place in (place - distance, place + distance):
                between = stream[min(place, other_place) : max(place, other_place) + 1]
                if 0 <= other_place < len(stream) and min(between) >= 0:
                    both[word, stream[other_place]] += 1 / distance  # type: ignore[assignment]
    return {pair: value for pair, value in both.items() if pair[0] <= pair[1]}


def as_dict(found: Cooccurrences) -> dict[tuple[int, int], float]:
    pairs = zip(found.first.tolist(), found.second.tolist(), strict=True)
    return dict(zip(pairs, found.counts.tolist(), strict=True))


@given(st.lists(st.integers(-1, 6), min_size=3, max_size=40), st.integers(1, 5))
@hypothesis_settings(max_examples=30)
def test_counts_are_those_of_the_definition(
    tmp_path_factory: pytest.TempPathFactory, stream: list[int], window: int
) -> None:
    expected = by_hand(stream, window)
    folder = tmp_path_factory.mktemp("pairs")
    if not expected:
        with pytest.raises(DataError, match="no two words"):
            count_cooccurrences(np.array(stream, np.int32), 7, window=window, folder=folder)
        return
    found = as_dict(count_cooccurrences(np.array(stream, np.int32), 7, window=window, folder=folder))
    assert found.keys() == expected.keys()
    for pair, value in expected.items():
        assert math.isclose(found[pair], value, rel_tol=1e-6)


def test_neither_threads_nor_memory_change_a_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(name: str, threads: int, memory_bytes: int) -> Cooccurrences:
        (tmp_path / name).mkdir()
        return count_cooccurrences(
            STREAM, VOCABULARY, window=7, folder=tmp_path / name, memory_bytes=memory_bytes, threads=threads, seed=3
        )

    whole = counted("whole", 1, 1 << 24)
    expected = by_hand(STREAM.tolist(), 7)
    assert as_dict(whole).keys() == expected.keys()
    monkeypatch.setattr(cooccurrences, "_FREQUENT", 5)  # most pairs go through the hash table
    monkeypatch.setattr(cooccurrences, "_LEAST_PLACES", 64)  # which is emptied into files again and again
    monkeypatch.setattr(cooccurrences, "_STREAM_PART", 500)
    spills = []
    empty = cooccurrences._empty
    monkeypatch.setattr(cooccurrences, "_empty", lambda *tables: (spills.append(1), empty(*tables)))
    spilled = counted("spilled", 3, 1)
    assert len(spills) > 20
    for name in ("first", "second", "counts"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(spilled, name))
    assert not list((tmp_path / "spilled").glob("pairs-*"))


def test_the_kernel_does_what_the_equations_say() -> None:
    """Against AdaGrad on equation 8, written out in float64, one pair after the other."""
    words, size, pairs = 5, 16, 200
    parameters = RANDOM.normal(scale=0.3, size=(words, 4, size)).astype(np.float32)
    parameters[:, 2:] = 1
    biases = np.ones((words, 4), np.float32)
    first, second = np.sort(RANDOM.integers(0, words, (2, pairs)).astype(np.int32), axis=0)
    counts = RANDOM.uniform(1, 300, pairs).astype(np.float32)
    weights = np.minimum(1, counts / 100).astype(np.float32) ** np.float32(0.75)
    exact, exact_biases, expected = parameters.astype(np.float64), biases.astype(np.float64), 0.0
    for a, b, count, weight in zip(first, second, counts, weights, strict=True):
        for i, j in {(a, b), (b, a)} if a == b else [(a, b), (b, a)]:
            error = exact[i, 0] @ exact[j, 1] + exact_biases[i, 0] + exact_biases[j, 1] - math.log(count)
            expected += float(weight * error**2)
            of_ours, of_theirs = (0.05 * weight * error * vector for vector in (exact[j, 1], exact[i, 0]))
            for row, place, gradient in ((i, 0, of_ours), (j, 1, of_theirs)):
                exact[row, place] -= gradient / np.sqrt(exact[row, place + 2])
                exact[row, place + 2] += gradient**2
                bias_gradient = 0.05 * weight * error
                exact_biases[row, place] -= bias_gradient / np.sqrt(exact_biases[row, place + 2])
                exact_biases[row, place + 2] += bias_gradient**2
    loss = fit(parameters, biases, first, second, np.log(counts), weights, 0.05)
    np.testing.assert_allclose(parameters, exact, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(biases, exact_biases, rtol=2e-4, atol=2e-5)
    assert math.isclose(loss, expected, rel_tol=1e-4)


SETTINGS = GloVeSettings(vector_size=20, window=5, epochs=6, x_max=10, deterministic=True)


def test_the_loss_falls_and_is_that_of_the_vectors(tmp_path: Path) -> None:
    told: list[Epoch] = []
    result = train_glove(STREAM, VOCABULARY, SETTINGS, folder=tmp_path, threads=2, after_epoch=told.append)
    losses = [epoch.loss for epoch in result.epochs]
    assert told == list(result.epochs)
    assert losses[-1] < losses[0] / 2
    assert result.vectors.shape == (VOCABULARY, 20)
    assert np.isfinite(result.vectors).all()


def test_words_that_share_their_neighbours_get_similar_vectors(tmp_path: Path) -> None:
    """Two groups of five words that each appear among their own group's three companions only."""
    lines = []
    for _ in range(3000):
        group = int(RANDOM.integers(2))
        word, others = group * 5 + RANDOM.integers(5), 10 + group * 3 + RANDOM.permutation(3)
        lines += [others[0], word, others[1], others[2], -1]
    result = train_glove(np.array(lines, np.int32), 16, SETTINGS, folder=tmp_path)
    unit = result.vectors[:10] / np.linalg.norm(result.vectors[:10], axis=1, keepdims=True)
    similar = unit @ unit.T
    within = np.concatenate([similar[:5, :5][np.triu_indices(5, 1)], similar[5:, 5:][np.triu_indices(5, 1)]])
    assert within.min() > similar[:5, 5:].max()


def test_a_training_cut_off_goes_on_to_the_same_vectors(tmp_path: Path) -> None:
    class CutError(Exception):
        pass

    def cut(epoch: Epoch) -> None:
        if epoch.number == 3:
            raise CutError

    whole = train_glove(STREAM, VOCABULARY, SETTINGS, folder=tmp_path / "whole")
    with pytest.raises(CutError):
        train_glove(STREAM, VOCABULARY, SETTINGS, folder=tmp_path / "cut", after_epoch=cut)
    resumed: list[Epoch] = []
    gone_on = train_glove(STREAM, VOCABULARY, SETTINGS, folder=tmp_path / "cut", after_epoch=resumed.append)
    assert [epoch.number for epoch in resumed] == [4, 5, 6]
    np.testing.assert_array_equal(gone_on.vectors, whole.vectors)
    assert [epoch.loss for epoch in gone_on.epochs] == [epoch.loss for epoch in whole.epochs]


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    train_glove(STREAM, VOCABULARY, SETTINGS, folder=tmp_path)
    other = GloVeSettings(vector_size=20, window=5, epochs=6, x_max=50, deterministic=True)
    with pytest.raises(RunFolderError, match="x_max differs"):
        train_glove(STREAM, VOCABULARY, other, folder=tmp_path)
    with pytest.raises(RunFolderError, match="counts are of another text"):
        train_glove(STREAM[:-1], VOCABULARY, SETTINGS, folder=tmp_path)


def test_what_cannot_be_trained_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="window is 0"):
        GloVeSettings(window=0)
    with pytest.raises(DataError, match="no two words"):
        train_glove(np.array([0, -1, 1, -1], np.int32), 2, SETTINGS, folder=tmp_path / "alone")
    shorter_than_the_window = train_glove(np.array([0, 1, -1], np.int32), 2, SETTINGS, folder=tmp_path / "short")
    assert shorter_than_the_window.pairs == 1
    wild = GloVeSettings(learning_rate=1e30, vector_size=20, window=5, deterministic=True)
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train_glove(STREAM, VOCABULARY, wild, folder=tmp_path / "wild")
