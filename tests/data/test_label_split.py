"""Splits: exact partitions by content, no group and no near-duplicate in two parts, rare classes in train and test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.label_split import Split, given_split, make_split, one_of_each
from rung.data.labelled import LabelledItems, item_ids
from rung.data.labelled_reading import read_labelled
from rung.data.leaks import find_leaks
from rung.data.similar_items import ComparableTexts, similar_clusters
from rung.errors import DataError

LABELS = st.lists(st.integers(0, 4), min_size=20, max_size=120)


def items_of(labels: list[int], texts: list[str] | None = None, **columns: list[str]) -> LabelledItems:
    texts = texts or [f"item {number} alone" for number in range(len(labels))]
    names = tuple(f"class {number}" for number in range(max(labels) + 1))
    return LabelledItems(
        item_ids(texts, [names[label] for label in labels]), texts, np.array(labels, np.int64), names, **columns
    )


def ids_by_part(items: LabelledItems, split: Split) -> list[set[str]]:
    return [{items.ids[at] for at in part} for part in (split.train, split.valid, split.test)]


def assert_partition(items: LabelledItems, split: Split) -> None:
    together = np.concatenate([split.train, split.valid, split.test])
    assert sorted(together.tolist()) == list(range(len(items)))
    for part in (split.train, split.valid, split.test):
        assert (np.diff(part) > 0).all()


@given(labels=LABELS, seed=st.integers(0, 1000))
def test_stratified_is_an_exact_partition_near_its_shares(labels: list[int], seed: int) -> None:
    items = items_of(labels)
    split = make_split(items, seed=seed)
    assert_partition(items, split)
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        train, valid, test = ((items.labels[part] == label).sum() for part in (split.train, split.valid, split.test))
        if count >= 3:
            assert train >= 1
            assert test >= 1
        if count == 1:
            assert train == 1
        assert abs(test - 0.2 * count) <= 1
        assert abs(valid - 0.1 * count) <= 1


@given(labels=LABELS, shuffle=st.integers(0, 2**32 - 1), method=st.sampled_from(["stratified", "grouped", "time"]))
def test_order_of_items_makes_no_difference(labels: list[int], shuffle: int, method: str) -> None:
    groups = [f"g{number // 2 % 9}" for number in range(len(labels))]
    times = [f"2025-01-{1 + number % 28:02d}" for number in range(len(labels))]
    items = items_of(labels, [f"text {number // 2}" for number in range(len(labels))], groups=groups, times=times)
    shuffled = items.take(np.random.default_rng(shuffle).permutation(len(items)))
    first, second = (make_split(each, seed=3, method=method) for each in (items, shuffled))  # type: ignore[arg-type]
    assert ids_by_part(items, first) == ids_by_part(shuffled, second)
    assert first.sha256 == second.sha256


def test_seeds_give_other_splits_and_equal_ones_the_same() -> None:
    items = items_of([0, 1] * 50)
    hashes = [make_split(items, seed=seed).sha256 for seed in (0, 1, 2, 0)]
    assert len(set(hashes)) == 3
    assert hashes[0] == hashes[3]


@given(sizes=st.lists(st.integers(1, 12), min_size=3, max_size=25), seed=st.integers(0, 100))
def test_no_group_is_in_two_parts(sizes: list[int], seed: int) -> None:
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    items = items_of([number % 2 for number in range(len(groups))], groups=groups)
    split = make_split(items, seed=seed, method="grouped")
    assert_partition(items, split)
    parts = [{groups[at] for at in part} for part in (split.train, split.valid, split.test)]
    assert sum(map(len, parts)) == len(sizes)
    assert all(parts)


def test_items_without_a_group_are_a_group_each() -> None:
    items = items_of([0, 1] * 20, groups=[""] * 40)
    split = make_split(items, seed=0, method="grouped")
    assert (len(split.train), len(split.valid), len(split.test)) == (28, 4, 8)


@given(days=st.permutations(list(range(1, 29)) * 2))
def test_time_never_runs_backwards(days: list[int]) -> None:
    times = [f"2025-01-{day:02d}" for day in days]
    items = items_of([number % 2 for number in range(len(days))], times=times)
    split = make_split(items, seed=0, method="time")
    assert_partition(items, split)
    latest = [max(times[at] for at in part) for part in (split.train, split.valid)]
    earliest = [min(times[at] for at in part) for part in (split.valid, split.test)]
    assert latest[0] < earliest[0]
    assert latest[1] < earliest[1]


def test_copies_and_near_copies_stay_together() -> None:
    line = "{0} one {0} two {0} three {0} four {0} five {0} six {0} seven {0} eight {0} nine {0} ten"
    texts = [line.format(f"word{number // 4}") + " again" * (number % 4) for number in range(200)]
    clusters = similar_clusters(ComparableTexts.of(texts), np.arange(200))
    assert len(set(clusters.tolist())) == 50
    items = items_of([number % 3 for number in range(200)], texts)
    split = make_split(items, seed=1)
    parts = [set(clusters[part].tolist()) for part in (split.train, split.valid, split.test)]
    assert sum(map(len, parts)) == len(set(clusters.tolist()))


def test_a_template_filled_in_many_ways_is_split_all_the_same() -> None:
    line = (
        "ticket {} was received and will be answered by the next free one of our team within two working days or sooner"
    )
    items = items_of([number % 2 for number in range(100)], [line.format(number) for number in range(100)])
    split = make_split(items, seed=1)
    assert (len(split.train), len(split.valid), len(split.test)) == (70, 10, 20)
    assert "So many texts are nearly the same" in split.notes[0]


def test_one_day_cannot_be_split_by_time() -> None:
    with pytest.raises(DataError, match="cannot be split so that"):
        make_split(items_of([0, 1] * 10, times=["2025-01-01"] * 20), seed=0, method="time")


def test_many_small_classes_keep_the_shares() -> None:
    split = make_split(items_of([number // 4 for number in range(400)]), seed=0)
    assert (len(split.train), len(split.valid), len(split.test)) == (260, 40, 100)


def test_a_class_of_copies_only_is_reported() -> None:
    texts = [f"text {number}" for number in range(40)] + ["the same"] * 3
    split = make_split(items_of([0, 1] * 20 + [2] * 3, texts), seed=0)
    assert split.notes == ["The class 'class 2' has no item in test."]


def test_a_share_of_zero_leaves_a_part_empty() -> None:
    items = items_of([0, 1] * 20)
    split = make_split(items, seed=0, test_share=0, valid_share=0.2)
    assert (len(split.train), len(split.valid), len(split.test)) == (32, 8, 0)
    assert not split.notes


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"method": "grouped"}, "no groups"),
        ({"method": "time"}, "no times"),
        ({"test_share": 0.9, "valid_share": 0.1}, "nothing to train"),
    ],
)
def test_impossible_splits_say_why(arguments: dict, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        make_split(items_of([0, 1] * 20), seed=0, **arguments)


def test_two_groups_cannot_make_three_parts() -> None:
    with pytest.raises(DataError, match="fewer than three groups"):
        make_split(items_of([0, 1] * 20, groups=["a", "b"] * 20), seed=0, method="grouped")


def test_given_parts_keep_their_items() -> None:
    split = given_split(["a", "b"], [], ["c"])
    assert (split.train.tolist(), split.valid.tolist(), split.test.tolist()) == ([0, 1], [], [2])
    assert split.sha256 != given_split(["a"], ["b"], ["c"]).sha256


def test_a_made_split_of_real_messages_leaks_nothing_word_for_word(rung_data: Path) -> None:
    path = rung_data / "sms-spam" / "SMSSpamCollection.tsv"
    items = read_labelled(path, target="1", text_columns=["2"]).items
    split = make_split(items, seed=0)
    found = find_leaks(items.take(split.train), items.take(split.test))
    assert not found.exact.any()
    assert not found.near.any()
    assert found.share < 0.05
    shares = [len(part) / len(items) for part in (split.train, split.valid, split.test)]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.005)


def test_one_of_each_keeps_the_lowest_id_of_copies() -> None:
    copy = "free entry in a weekly competition to win cup final tickets text now to receive the question"
    texts = [copy, copy + " today", "something else entirely", copy.upper(), "and one more of its own"]
    ids = ["d", "b", "c", "e", "a"]
    found = LabelledItems(ids, texts, np.zeros(5, np.int64), ("x",))
    assert [ids[at] for at in one_of_each(found)] == ["b", "c", "a"]
    backwards = found.take(np.arange(5)[::-1])
    assert sorted(backwards.ids[at] for at in one_of_each(backwards)) == ["a", "b", "c"]
