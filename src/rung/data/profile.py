"""What a set of labelled items looks like before anything is trained on it: sizes, classes, repetitions, conflicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.data.documents import excerpt
from rung.data.labelled import LabelledItems
from rung.data.similar_items import ComparableTexts, equal_groups, similar_clusters

MOST_EXAMPLES = 5
_LONG_CHARACTERS = 100_000

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Finding:
    """The outcome of one gate. `items` (count,) are indices; `share` is of all items looked at, 0 to 1."""

    name: str
    passed: bool
    count: int
    share: float
    sentence: str
    examples: list[dict[str, str]]
    items: Ints

    def as_json(self) -> dict[str, Any]:
        """Plain values for a report: everything but the indices."""
        return {
            "name": self.name,
            "passed": self.passed,
            "count": self.count,
            "share": self.share,
            "sentence": self.sentence,
            "examples": self.examples,
        }


@dataclass(frozen=True)
class Lengths:
    """Smallest, quantiles and largest of a length over items."""

    minimum: int
    percentile_5: int
    median: int
    mean: float
    percentile_95: int
    maximum: int

    @classmethod
    def of(cls, values: NDArray[np.integer[Any]]) -> Lengths:
        """Summarise (n,) lengths, n > 0; quantiles are observed values."""
        low, middle, high = np.quantile(values, (0.05, 0.5, 0.95), method="inverted_cdf").astype(int).tolist()
        return cls(int(values.min()), low, middle, float(values.mean()), high, int(values.max()))


@dataclass(frozen=True)
class Profile:
    """Lengths, classes (label -> items, most frequent first) and characters; `sentences` say it to people."""

    items: int
    characters: Lengths
    words: Lengths
    distinct_words: int
    classes: dict[str, int]
    ascii_share: float
    without_words: int
    sentences: list[str]


def profile(items: LabelledItems) -> Profile:
    """Profile at least one item. Words are runs of letters and digits; each Chinese, Japanese, ... character is one."""
    texts = ComparableTexts.of(items.texts)
    characters = Lengths.of(np.array([len(text) for text in items.texts]))
    words = Lengths.of(texts.num_words)
    counts = np.bincount(items.labels, minlength=len(items.label_names))
    order = np.lexsort((np.arange(len(counts)), -counts))
    classes = {items.label_names[at]: int(counts[at]) for at in order}
    without_words = int((texts.num_words == 0).sum())
    plain = sum(text.isascii() for text in items.texts) / len(items)
    sentences = [
        f"{len(items):,} items in {int((counts > 0).sum())} classes; texts have {words.median:,} words in the middle, "
        f"{words.percentile_95:,} at the 95th percentile, {words.maximum:,} at most."
    ]
    largest, least = next(iter(classes)), [name for name, count in classes.items() if count][-1]
    sentences.append(
        f"The largest class is '{largest}' with {share_of(classes[largest], len(items))} items, the smallest '{least}' "
        f"with {classes[least]:,}: always saying '{largest}' is right that often."
    )
    if without_words:
        sentences.append(f"{share_of(without_words, len(items))} of the texts have no word, only signs.")
    if characters.maximum >= _LONG_CHARACTERS:
        sentences.append(f"The longest text has {characters.maximum:,} characters: networks read its beginning only.")
    return Profile(len(items), characters, words, texts.num_distinct_words(), classes, plain, without_words, sentences)


def find_exact_duplicates(items: LabelledItems, texts: ComparableTexts | None = None) -> Finding:
    """Items whose words an earlier item (in the order of ids) has as well; the first of each is not counted."""
    first = equal_groups((texts or ComparableTexts.of(items.texts)).sequence)
    copies = np.flatnonzero(first != np.arange(len(items)))
    sentence = "No two texts are the same."
    if copies.size:
        sentence = (
            f"{share_of(len(copies), len(items))} of the texts repeat another word for word. A split keeps them "
            "together."
        )
    return _finding("exact duplicates", items, copies, first[copies], sentence)


def find_near_duplicates_of_items(items: LabelledItems, texts: ComparableTexts | None = None) -> Finding:
    """Items that are alike (Jaccard of word 5-grams >= 0.8) to an earlier one without being equal to it."""
    texts = texts or ComparableTexts.of(items.texts)
    distinct = np.flatnonzero(equal_groups(texts.sequence) == np.arange(len(items)))
    clusters = similar_clusters(texts, np.arange(len(items)))
    _, first, inverse = np.unique(clusters[distinct], return_index=True, return_inverse=True)
    leaders = distinct[first[inverse]]
    alike = leaders != distinct
    sentence = "No two different texts are nearly the same."
    if alike.any():
        sentence = (
            f"{share_of(int(alike.sum()), len(items))} of the texts are nearly the same as another, by their runs of "
            "five words. A split keeps them together."
        )
    return _finding("near duplicates", items, distinct[alike], leaders[alike], sentence)


def find_conflicts(items: LabelledItems, texts: ComparableTexts | None = None) -> Finding:
    """Items whose words occur under several labels: no classifier can get all of them right."""
    first = equal_groups((texts or ComparableTexts.of(items.texts)).sequence)
    lowest, highest = items.labels.copy(), items.labels.copy()
    np.minimum.at(lowest, first, items.labels)
    np.maximum.at(highest, first, items.labels)
    conflicting = np.flatnonzero((lowest != highest)[first])
    sentence = "No text occurs under two labels."
    if conflicting.size:
        groups = len(np.unique(first[conflicting]))
        sentence = (
            f"{share_of(len(conflicting), len(items))} of the items carry a text that occurs under several labels "
            f"({groups:,} such text{'s' * (groups != 1)}): nobody can get all of these right."
        )
    other = np.array([_another(items, first, at) for at in conflicting[:MOST_EXAMPLES].tolist()], np.int64)
    return _finding("conflicting labels", items, conflicting, other, sentence)


def share_of(count: int, total: int) -> str:
    """`76 of 5,452 (1.4 %)`."""
    return f"{count:,} of {total:,} ({100 * count / max(total, 1):.1f} %)"


def _another(items: LabelledItems, first: Ints, item: int) -> int:
    """An item of equal words and another label."""
    return int(np.flatnonzero((first == first[item]) & (items.labels != items.labels[item]))[0])


def _finding(name: str, items: LabelledItems, found: Ints, partners: Ints, sentence: str) -> Finding:
    examples = [
        {
            "text": excerpt(items.texts[at]),
            "label": items.label_names[items.labels[at]],
            "other_text": excerpt(items.texts[other]),
            "other_label": items.label_names[items.labels[other]],
        }
        for at, other in zip(found[:MOST_EXAMPLES].tolist(), partners[:MOST_EXAMPLES].tolist(), strict=True)
    ]
    return Finding(name, not found.size, len(found), len(found) / max(len(items), 1), sentence, examples, found)


def all_findings(items: LabelledItems) -> Sequence[Finding]:
    """Exact duplicates, near-duplicates and conflicts; the texts are made comparable once."""
    texts = ComparableTexts.of(items.texts)
    return (
        find_exact_duplicates(items, texts),
        find_near_duplicates_of_items(items, texts),
        find_conflicts(items, texts),
    )
