"""Test items that training has seen: the same text, nearly the same, or half of its word 8-grams.

Eight words in a row hardly recur by chance, so an item half of whose 8-grams occur in training has been read before,
whatever was done to its punctuation (reference: GPT-2 paper, section 4, measures overlap by 8-grams as well).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rung.data.documents import documents_at_once, excerpt
from rung.data.labelled import LabelledItems
from rung.data.profile import MOST_EXAMPLES, Finding, share_of
from rung.data.similar_items import NGRAM_WORDS, ComparableTexts, is_among, ngram_shares, similar_to
from rung.errors import DataError

LEAKED_SHARE = 0.5
"""From this share of its 8-grams on, an item counts as leaked."""
TOLERATED = 0.05
"""A comparison stops when more than this share of the test items leaked."""

_COMPARED_AT_ONCE = 4_000_000  # characters

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Leaks:
    """What of n test items is in training. Flags are (n,); an item may be found in several ways.

    source: (n,) a training item that is equal or alike, -1 where there is none (many share the 8-grams of one item).
    long_enough: the items of at least 8 words, the only ones `by_ngrams` can find.
    conflicting: items equal to training items, none of which has the same label; None without labels.
    """

    exact: Flags
    by_ngrams: Flags
    near: Flags
    long_enough: Flags
    source: Ints
    conflicting: Flags | None
    finding: Finding

    @property
    def leaked(self) -> Flags:
        """Items found in any of the three ways."""
        return self.exact | self.by_ngrams | self.near

    @property
    def share(self) -> float:
        """Leaked items of all test items."""
        return float(self.leaked.mean()) if len(self.exact) else 0.0


def find_leaks(train: LabelledItems, test: LabelledItems) -> Leaks:
    """Compare every item of `test` with all of `train`, by text and, where texts are equal, by label."""
    left, right = ComparableTexts.of(train.texts), ComparableTexts.of(test.texts)
    exact, by_ngrams, near, source = _matches(left, right)
    conflicting = _conflicting(left, right, train, test) & exact
    long_enough = right.num_words >= NGRAM_WORDS
    leaked = exact | by_ngrams | near
    finding = _finding(train, test, leaked, source, (exact, by_ngrams, near, conflicting))
    return Leaks(exact, by_ngrams, near, long_enough, source, conflicting, finding)


def require_no_leaks(leaks: Leaks, *, allow: bool) -> None:
    """Raise DataError when more than `TOLERATED` of the test items are in training, unless that is allowed."""
    if leaks.share > TOLERATED and not allow:
        raise DataError(
            f"{leaks.finding.sentence} Above {TOLERATED:.0%} a comparison on them would say nothing about new texts",
            hint="take the leaked items out of training or test; or allow it (--allow-leaks): they are then scored "
            "apart, and the report says so",
        )


def without_items(texts: Sequence[str], held_out: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part `texts` (for pretraining) into those that may be read and those that give away a held-out item.

    Dropped are texts equal or nearly equal to a held-out text, texts at least half of whose 8-grams are in held-out
    texts, and, where half of the 8-grams of a held-out text occur in `texts` taken together, all texts with any of
    them. So in what is kept no held-out text is found by `find_leaks`' three measures.
    """
    ours, theirs = ComparableTexts.of(texts), ComparableTexts.of(held_out)
    exact, _, near, _ = _matches(theirs, ours)
    mostly_theirs = ngram_shares(ours, theirs) >= LEAKED_SHARE
    drop = exact | near | mostly_theirs
    given_away = ngram_shares(theirs, ours) >= LEAKED_SHARE
    runs, owners = theirs.ngrams
    wanted = np.unique(runs[given_away[owners]])
    our_runs, our_owners = ours.ngrams
    drop[our_owners[is_among(our_runs, wanted)]] = True
    kept = [text for text, gone in zip(texts, drop, strict=True) if not gone]
    return kept, [text for text, gone in zip(texts, drop, strict=True) if gone]


def found_in_documents(texts: Sequence[str], documents: Iterable[str]) -> Flags:
    """(n,) which `texts` stand in running text: half of their 8-grams in all `documents` taken together.

    Fewer than 8 words stand anywhere by chance, so such a text counts only where a document is that text and no more.
    """
    ours = ComparableTexts.of(texts)
    runs, which = np.unique(ours.ngrams[0], return_inverse=True)
    seen, equal = np.zeros(len(runs), bool), np.zeros(len(texts), bool)
    for batch in documents_at_once(documents, _COMPARED_AT_ONCE):
        theirs = ComparableTexts.of(batch)
        seen |= is_among(runs, theirs.ngrams[0])
        equal |= is_among(ours.sequence, theirs.sequence)
    owner, run = np.unique(np.stack([ours.ngrams[1], which]), axis=1)
    total = np.bincount(owner, minlength=len(texts))
    share = np.bincount(owner, weights=seen[run], minlength=len(texts)) / np.maximum(total, 1)
    return (share >= LEAKED_SHARE) | equal


def _matches(train: ComparableTexts, test: ComparableTexts) -> tuple[Flags, Flags, Flags, Ints]:
    """For each test text: equal to a training text, half of its 8-grams in training, nearly equal; and to which."""
    known, first = np.unique(train.sequence, return_index=True)
    at = np.minimum(np.searchsorted(known, test.sequence), max(len(known) - 1, 0))
    exact = known[at] == test.sequence if len(known) else np.zeros(len(test), bool)
    by_ngrams = ngram_shares(test, train) >= LEAKED_SHARE
    twin = similar_to(test, train)
    source = np.where(exact, first[at] if len(known) else -1, twin)
    return exact, by_ngrams, twin >= 0, source


def _conflicting(left: ComparableTexts, right: ComparableTexts, train: LabelledItems, test: LabelledItems) -> Flags:
    """Which test items have no training item of equal text and equal label."""
    seen = {
        (sequence, train.label_names[label])
        for sequence, label in zip(left.sequence.tolist(), train.labels.tolist(), strict=True)
    }
    pairs = zip(right.sequence.tolist(), test.labels.tolist(), strict=True)
    return np.array([(sequence, test.label_names[label]) not in seen for sequence, label in pairs], bool)


def _finding(
    train: LabelledItems, test: LabelledItems, leaked: Flags, source: Ints, ways: tuple[Flags, Flags, Flags, Flags]
) -> Finding:
    exact, by_ngrams, near, conflicting = ways
    count = int(leaked.sum())
    share = count / max(len(test), 1)
    if count:
        sentence = (
            f"{share_of(count, len(test))} of the test items are in training: {int(exact.sum()):,} word for word, "
            f"{int(by_ngrams.sum()):,} by half of their runs of {NGRAM_WORDS} words, {int(near.sum()):,} nearly equal."
        )
        if conflicting.any():
            sentence += (
                f" {share_of(int(conflicting.sum()), int(exact.sum()))} of the equal ones have another label there."
            )
    else:
        sentence = "No test item is in training, neither word for word nor nearly."
    examples = []
    for item in np.flatnonzero(leaked)[:MOST_EXAMPLES].tolist():
        example = {"test": excerpt(test.texts[item]), "label": test.label_names[test.labels[item]]}
        if (origin := int(source[item])) >= 0:
            example |= {"train": excerpt(train.texts[origin]), "train_label": train.label_names[train.labels[origin]]}
        examples.append(example)
    return Finding("leaks", share <= TOLERATED, count, share, sentence, examples, np.flatnonzero(leaked))
