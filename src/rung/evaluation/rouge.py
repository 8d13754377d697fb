"""ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), as the package rouge-score defines them, without stemming.

Words are runs of a-z and 0-9 after lower-casing: made for English, all other letters part words. ROUGE-L here is the
longest common subsequence of whole texts. A score is the harmonic mean of precision and recall, 0 to 1, and the metric
its mean over texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from rung.errors import EvaluationError
from rung.evaluation.intervals import intervals
from rung.records import ItemScores, Record

_WORD = re.compile(r"[a-z0-9]+")
_SIGNATURE = "F1 of rouge-score 0.1.2, without stemming, mean over texts"


def rouge_records(
    ids: Sequence[str], hypotheses: Sequence[str], references: Sequence[str], *, data_sha256: str | None = None
) -> tuple[list[Record], dict[str, ItemScores]]:
    """Records `rouge1`, `rouge2` and `rougeL` with bootstrap intervals over texts, and their scores by text.

    Raises EvaluationError when the lists differ in length.
    """
    scores = rouge_scores(ids, hypotheses, references)
    records = [
        Record(
            name=name,
            value=one.mean,
            unit="F1",
            n=len(ids),
            interval=spread,
            signature=_SIGNATURE,
            data_sha256=data_sha256,
        )
        for (name, one), spread in zip(scores.items(), intervals(list(scores.values())), strict=True)
    ]
    return records, scores


def rouge_scores(ids: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, ItemScores]:
    """The three scores of each text. EvaluationError when the lists differ in length."""
    if not len(ids) == len(hypotheses) == len(references):
        raise EvaluationError(f"{len(ids)} ids, {len(hypotheses)} hypotheses and {len(references)} references")
    pairs = [(words(written), words(wanted)) for written, wanted in zip(hypotheses, references, strict=True)]
    ones = np.ones(len(ids))
    return {
        name: ItemScores(list(ids), np.array([score(*pair) for pair in pairs], dtype=np.float64), ones)
        for name, score in _SCORES.items()
    }


def words(text: str) -> list[str]:
    """The words of `text` as ROUGE sees them."""
    return _WORD.findall(text.lower())


def rouge_n(hypothesis: Sequence[str], reference: Sequence[str], order: int) -> float:
    """F1 of the runs of `order` words, each counted as often as in the text that has it less often."""
    ours, theirs = _runs(hypothesis, order), _runs(reference, order)
    return _f1((ours & theirs).total(), ours.total(), theirs.total())


def rouge_l(hypothesis: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of the longest common subsequence."""
    return _f1(longest_common_subsequence(hypothesis, reference), len(hypothesis), len(reference))


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest sequence of words that both have in this order.

    A row of the usual table at a time, as the bits of one integer (Hyyrö 2004, "Bit-parallel LCS-length computation
    revisited"): a bit is 0 where the length grows.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    everything = (1 << len(first)) - 1
    row = everything
    for word in second:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & everything
    return len(first) - row.bit_count()


def _runs(text: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[start : start + order]) for start in range(len(text) - order + 1))


def _f1(common: int, written: int, wanted: int) -> float:
    return 2 * common / (written + wanted) if common else 0.0


_SCORES: dict[str, Callable[[Sequence[str], Sequence[str]], float]] = {
    "rouge1": partial(rouge_n, order=1),
    "rouge2": partial(rouge_n, order=2),
    "rougeL": rouge_l,
}
