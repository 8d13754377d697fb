"""What the profile and the gates within one data set say, checked by counting the slow way."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rung.data.labelled import LabelledItems, item_ids
from rung.data.labelled_reading import read_labelled
from rung.data.profile import find_conflicts, find_exact_duplicates, find_near_duplicates_of_items, profile


def items_of(texts: Sequence[str], labels: Sequence[str]) -> LabelledItems:
    ids = item_ids(texts, labels)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    names = tuple(sorted(set(labels)))
    return LabelledItems(
        ids=[ids[at] for at in order],
        texts=[texts[at] for at in order],
        labels=np.array([names.index(labels[at]) for at in order], np.int64),
        label_names=names,
    )


def words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3), st.sampled_from(" ,.!"), st.booleans()),
        min_size=1,
        max_size=40,
    )
)  # fmt: skip
def test_duplicates_and_conflicts_are_those_of_a_plain_count(rows: list[tuple[list[str], str, bool]]) -> None:
    texts = [f"{between.join(parts).title()}{between}" for parts, between, _ in rows]
    items = items_of(texts, [str(label) for *_, label in rows])
    counts = Counter(map(words, items.texts))
    labels = defaultdict(set)
    for text, label in zip(items.texts, items.labels.tolist(), strict=True):
        labels[words(text)].add(label)
    assert find_exact_duplicates(items).count == len(items) - len(counts)
    expected = [at for at, text in enumerate(items.texts) if len(labels[words(text)]) > 1]
    found = find_conflicts(items)
    assert found.items.tolist() == expected
    assert all(example["label"] != example["other_label"] for example in found.examples)
    assert all(words(example["text"]) == words(example["other_text"]) for example in found.examples)


def test_near_duplicates_are_found_beside_exact_ones() -> None:
    base = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    texts = [base, base.upper() + "!", f"{base} seventeen", "something else altogether, in fact"]
    found = find_near_duplicates_of_items(items_of(texts, ["a", "a", "a", "b"]))
    assert found.count == 1
    assert "1 of 4 (25.0 %)" in found.sentence


def test_signs_alone_are_compared_as_they_stand() -> None:
    items = items_of(["!!!", "?", "!!! ", "👍", "👎", "漢字", "漢子", "“quoted”", '"quoted"'], ["a"] * 9)
    assert find_exact_duplicates(items).count == 2  # "!!!" and the quoted word


def test_profile_counts_what_is_there() -> None:
    items = items_of(["one", "two words", "three words here", "Two words", "..."], ["a", "b", "b", "b", "a"])
    found = profile(items)
    assert (found.items, found.distinct_words, found.without_words) == (5, 5, 1)
    assert (found.words.minimum, found.words.median, found.words.maximum) == (0, 2, 3)
    assert found.classes == {"b": 3, "a": 2}
    assert found.ascii_share == 1
    assert "'b' with 3 of 5 (60.0 %) items" in found.sentences[1]


def test_a_single_item_has_a_profile() -> None:
    assert profile(items_of(["x" * 100_000], ["a"])).characters.maximum == 100_000


def test_trec_has_76_exact_duplicates(rung_data: Path) -> None:
    items = read_labelled(rung_data / "trec" / "train.jsonl").items
    assert find_exact_duplicates(items).count == 76
    texts = Counter(map(words, items.texts))
    assert len(items) - len(texts) == 76
