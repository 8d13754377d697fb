"""Packing and lanes: over one reading every token is a target once, whoever asks for which samples."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.data.lanes import LaneTokens
from rung.data.pack import IGNORE_INDEX, PackedTokens
from rung.data.shards import EncodedDocuments, TokenShards, write_shards
from rung.errors import DataError

EOS = 60_000


def shards_of(folder: Path, lengths: list[int], shard_tokens: int = 1 << 20) -> TokenShards:
    """Documents whose tokens are 0, 1, 2, ... throughout, so that a token names its place."""
    count = len(lengths)
    documents = EncodedDocuments(
        tokens=np.arange(sum(lengths)),
        lengths=np.array(lengths, dtype=np.int64),
        nbytes=np.array(lengths, dtype=np.int64),
        sha256=np.zeros((count, 32), np.uint8),
        continues=np.zeros(count, bool),
    )
    return write_shards(
        folder,
        [documents],
        tokenizer_sha256="",
        eos_token_id=EOS,
        vocab_size=EOS + 1,
        shard_tokens=shard_tokens,
    )


CORPORA = st.lists(st.integers(0, 20), min_size=1, max_size=8)


@given(
    lengths=CORPORA,
    context_length=st.integers(1, 40),
    seed_and_epoch=st.tuples(st.integers(0, 2**32), st.integers(0, 50)),
    shard_tokens=st.integers(1, 50),
)
@settings(max_examples=60)
def test_every_token_is_a_target_once_an_epoch_after_the_token_before_it(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    context_length: int,
    seed_and_epoch: tuple[int, int],
    shard_tokens: int,
) -> None:
    seed, epoch = seed_and_epoch
    shards = shards_of(tmp_path_factory.mktemp("pack") / "s", lengths, shard_tokens)
    packed = PackedTokens(shards, context_length=context_length, seed=seed)
    batch = packed.batch(range(epoch * packed.num_windows, (epoch + 1) * packed.num_windows))
    inputs, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
    assert inputs.shape == labels.shape == (packed.num_windows, context_length)
    assert inputs.dtype == labels.dtype == np.int64
    stream = shards.read(0, shards.num_tokens).tolist()
    assert packed.tokens_per_epoch == len(stream)
    has_target = labels != IGNORE_INDEX
    pairs = sorted(zip(inputs[has_target].tolist(), labels[has_target].tolist(), strict=True))
    assert pairs == sorted(zip([stream[-1], *stream[:-1]], stream, strict=True))
    assert (inputs[:, 1:] == labels[:, :-1])[has_target[:, 1:]].all()  # shifted by one inside a window
    assert (inputs >= 0).all()  # -100 is no token


@given(
    lengths=CORPORA,
    context_length=st.integers(1, 9),
    step=st.integers(0, 100),
    ranks=st.sampled_from([1, 2, 3, 4, 6, 12]),
)
@settings(max_examples=40)
def test_ranks_and_micro_batches_see_the_same_global_batch(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], context_length: int, step: int, ranks: int
) -> None:
    packed = PackedTokens(
        shards_of(tmp_path_factory.mktemp("pack") / "s", lengths), context_length=context_length, seed=1
    )
    samples = np.arange(12 * step, 12 * (step + 1))
    whole = packed.batch(samples)
    parts = [packed.batch(part) for part in np.split(samples, ranks)]
    for name, values in whole.items():
        assert np.array_equal(values.numpy(), np.concatenate([part[name].numpy() for part in parts]))


def test_each_epoch_is_cut_elsewhere(tmp_path: Path) -> None:
    packed = PackedTokens(shards_of(tmp_path / "s", [1000]), context_length=100, seed=0)
    samples = np.arange(20 * packed.num_windows).reshape(20, packed.num_windows)
    first_targets = {int(packed.batch(epoch)["labels"][:, 0].min()) for epoch in samples}
    assert len(first_targets) > 10


def test_another_seed_gives_another_order(tmp_path: Path) -> None:
    shards = shards_of(tmp_path / "s", [1000])
    one, two = (PackedTokens(shards, context_length=10, seed=seed).batch(range(8)) for seed in (1, 2))
    assert not np.array_equal(one["labels"].numpy(), two["labels"].numpy())


def test_a_text_shorter_than_a_context_is_one_window(tmp_path: Path) -> None:
    packed = PackedTokens(shards_of(tmp_path / "s", [3]), context_length=16, seed=0)
    labels = packed.batch([5])["labels"].numpy()[0]
    assert packed.num_windows == 1
    assert sorted(labels[:4].tolist()) == [0, 1, 2, EOS]
    assert (labels[4:] == IGNORE_INDEX).all()


def test_no_text_is_refused(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "s", [], tokenizer_sha256="", eos_token_id=0, vocab_size=10)
    with pytest.raises(DataError, match="no text"):
        PackedTokens(shards, context_length=8, seed=0)


def test_tensors_of_a_batch_do_not_share_memory(tmp_path: Path) -> None:
    batch = PackedTokens(shards_of(tmp_path / "s", [100]), context_length=8, seed=0).batch(range(4))
    labels = batch["labels"].clone()
    batch["input_ids"].zero_()
    assert batch["labels"].equal(labels)
    assert batch["input_ids"].is_contiguous()


@given(
    lengths=CORPORA,
    shape=st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 15)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=80, deadline=None)
def test_lanes_go_on_and_cover_the_text_evenly(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], shape: tuple[int, int, int], seed: int
) -> None:
    lanes, length, steps = shape
    shards = shards_of(tmp_path_factory.mktemp("lanes") / "shards", lengths)
    stream = shards.read(0, shards.num_tokens).tolist()
    tokens = LaneTokens(shards, lanes=lanes, length=length, seed=seed)
    batch = {name: value.numpy() for name, value in tokens.batch(np.arange(lanes * steps)).items()}
    read = {name: batch[name].reshape(steps, lanes, length) for name in ("input_ids", "labels")}
    assert (batch["lanes"].reshape(steps, lanes) == np.arange(lanes)).all()
    assert (batch["windows"].reshape(steps, lanes) == np.arange(steps)[:, None]).all()
    counts: Counter[int] = Counter()
    for lane in range(lanes):
        inputs, labels = (read[name][:, lane].ravel() for name in ("input_ids", "labels"))
        assert (inputs[1:] == labels[:-1]).all()  # the input is the token before the target, across windows too
        assert any(
            (np.roll(stream, -shift)[np.arange(len(labels)) % len(stream)] == labels).all()
            for shift in range(len(stream))
        )
        counts.update(labels.tolist())
    words = [counts[token] for token in range(sum(lengths))]
    if words:  # every place of the text has a token of its own; end-of-text tokens stand in several
        assert max(words) - min(words) <= 1
        assert counts[EOS] <= stream.count(EOS) * max(*words, min(words) + 1)


def test_any_process_reads_any_sample_of_a_lane(tmp_path: Path) -> None:
    tokens = LaneTokens(shards_of(tmp_path / "shards", [30, 40, 50]), lanes=4, length=5, seed=3)
    whole = tokens.batch(np.arange(24))
    for first, last in ((0, 2), (2, 4), (10, 12), (20, 24)):
        part = tokens.batch(np.arange(first, last))
        assert all((part[name] == whole[name][first:last]).all() for name in whole)
    assert tokens.num_windows == 7  # 123 tokens, 20 a step


def test_lanes_of_other_seeds_start_elsewhere(tmp_path: Path) -> None:
    shards = shards_of(tmp_path / "shards", [300])
    starts = {int(LaneTokens(shards, lanes=1, length=1, seed=seed).batch([0])["labels"][0, 0]) for seed in range(20)}
    assert len(starts) > 10


def test_lanes_without_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text"):
        LaneTokens(shards_of(tmp_path / "shards", []), lanes=1, length=1, seed=0)
