"""Old rows among the new: every sample of each source once and in order, whatever the batches."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rung.data.lanes import LaneTokens
from rung.data.mixture import Interleaved, MixedLanes, exact_share, replayed_lanes, replayed_windows
from rung.data.shards import EncodedDocuments, TokenShards, write_shards
from rung.errors import DataError

SHARES = st.fractions(min_value=Fraction(1, 1000), max_value=Fraction(9, 10), max_denominator=1000)


class Numbers:
    """A source whose samples say their own numbers."""

    def __init__(self, sign: int) -> None:
        self._sign = sign

    def batch(self, sample_numbers: Any) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([[self._sign * (int(number) + 1)] for number in sample_numbers])}


def shards(folder: Path, tokens: int, *, first: int) -> TokenShards:
    """One document of `tokens` tokens, `first` and on."""
    document = EncodedDocuments(
        tokens=np.arange(first, first + tokens - 1).astype(np.uint16),
        lengths=np.array([tokens - 1]),
        nbytes=np.array([tokens - 1]),
        sha256=np.zeros((1, 32), np.uint8),
        continues=np.array([False]),
    )
    return write_shards(folder, [document], tokenizer_sha256="x", eos_token_id=0, vocab_size=60_000)


@given(share=SHARES, count=st.integers(1, 400), start=st.integers(0, 10**12))
def test_each_source_is_counted_through_without_a_gap(share: Fraction, count: int, start: int) -> None:
    seen = Interleaved(Numbers(1), Numbers(-1), share).batch(np.arange(start, start + count))["input_ids"][:, 0]
    for part in (seen[seen > 0], -seen[seen < 0]):
        assert (part.diff() == 1).all()
    old = int((seen < 0).sum())
    assert abs(old - float(share * count)) <= 1, "evenly spread: never a whole row off"


@given(share=SHARES, cuts=st.lists(st.integers(1, 60), max_size=5))
def test_the_order_does_not_depend_on_how_batches_are_cut(share: Fraction, cuts: list[int]) -> None:
    mixed, whole = Interleaved(Numbers(1), Numbers(-1), share), np.arange(61)
    at_once = mixed.batch(whole)["input_ids"]
    pieces = [mixed.batch(piece)["input_ids"] for piece in np.split(whole, sorted(cuts)) if len(piece)]
    assert torch.equal(torch.cat(pieces), at_once)


def test_a_share_of_the_windows_is_old_and_every_token_is_read_once(tmp_path: Path) -> None:
    new, old = shards(tmp_path / "new", 400, first=1), shards(tmp_path / "old", 1200, first=1000)
    older = shards(tmp_path / "older", 400, first=5000)
    mixed = replayed_windows(new, [old, older], exact_share(0.5), context_length=10, seed=3)
    labels = mixed.batch(np.arange(80))["labels"]
    kinds = torch.where(labels.amax(1) >= 5000, 2, torch.where(labels.amax(1) >= 1000, 1, 0)).bincount()
    assert kinds[0] == 40, "half of the rows"
    assert kinds[1] == 30, "three of four old rows: the text is three times as long"
    ours = labels[(labels > 0).all(1) & (labels.amax(1) < 1000)]
    assert len(ours.unique()) == ours.numel()


def test_lanes_keep_their_text_for_good(tmp_path: Path) -> None:
    new, old = shards(tmp_path / "new", 500, first=1), shards(tmp_path / "old", 700, first=1000)
    mixed = replayed_lanes(new, [old], exact_share(0.25), lanes=8, length=5, seed=1)
    plain = [LaneTokens(new, lanes=6, length=5, seed=1), LaneTokens(old, lanes=2, length=5, seed=1)]
    first, second = mixed.batch(np.arange(8)), mixed.batch(np.arange(8, 16))
    assert first["lanes"].tolist() == list(range(8))
    assert second["windows"].tolist() == [1] * 8
    is_old = first["labels"].amax(1) >= 1000
    assert is_old.sum() == 2
    assert torch.equal(is_old, second["labels"].amax(1) >= 1000)
    for kind, source in zip((~is_old, is_old), plain, strict=True):
        assert torch.equal(second["labels"][kind], source.batch(np.arange(source.lanes, 2 * source.lanes))["labels"])
    assert torch.equal(first["input_ids"][:, 1:], first["labels"][:, :-1])


def test_too_few_lanes_are_told(tmp_path: Path) -> None:
    new, old = shards(tmp_path / "new", 500, first=1), shards(tmp_path / "old", 700, first=1000)
    with pytest.raises(DataError, match="too few"):
        replayed_lanes(new, [old, old], exact_share(0.1), lanes=2, length=5, seed=1)


def test_lanes_are_spread_among_each_other() -> None:
    source = SimpleNamespace(lanes=3, batch=lambda numbers: {"input_ids": torch.zeros(len(numbers), 1)})
    other = SimpleNamespace(lanes=1, batch=lambda numbers: {"input_ids": torch.ones(len(numbers), 1)})
    rows = MixedLanes([source, other]).batch(np.arange(4))["input_ids"][:, 0]  # type: ignore[list-item]
    assert rows.tolist() == [0, 0, 1, 0]
