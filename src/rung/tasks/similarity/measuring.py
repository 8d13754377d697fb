"""How good a sentence encoder is on held-out rows: ranks of scored pairs, or finding what belongs to a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.data.related_texts import RelatedTexts
from rung.evaluation.correlation import correlation_records, spearman, spearman_difference
from rung.evaluation.intervals import compare, interval
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record
from rung.tasks.similarity.encoder import SentenceEncoder

Floats = NDArray[np.float64]
_ROWS_AT_ONCE = 512
SPEARMAN, FOUND = "spearman", "recall_at_1"
BEFORE = "before tuning"


@dataclass(frozen=True)
class Measured:
    """What an encoder says of some rows. `values` (n,): cosines of scored pairs, else 1 where a row was found.

    `ranks` (n,): for rows without scores, the place of the right text among all candidates, from 1; else empty.
    """

    rows: RelatedTexts
    values: Floats
    ranks: Floats

    @property
    def headline(self) -> float:
        """Spearman's correlation with the scores, or the share of rows that were found; NaN where it does not exist."""
        if self.rows.scores is None:
            return float(self.values.mean())
        return float(spearman(self.values, self.rows.scores))

    def records(self) -> tuple[Record, ...]:
        """The measurements, with intervals over rows. Raises EvaluationError where a correlation does not exist."""
        rows = self.rows
        if rows.scores is not None:
            return correlation_records(self.values, rows.scores, data_sha256=rows.sha256)
        candidates = len(rows) * (len(rows.columns) - 1)
        how = f"the right one of {candidates:,} texts by cosine; texts that are right too are left out"
        return tuple(
            Record(
                name=name,
                value=scores.mean,
                unit=unit,
                n=len(rows),
                interval=interval(scores),
                signature=how,
                data_sha256=rows.sha256,
            )
            for name, unit, scores in (
                (FOUND, "share", self.scores()),
                ("mean_reciprocal_rank", "1/rank", _items(rows, 1 / self.ranks)),
            )
        )

    def gain(self, before: Measured) -> Record:
        """How much better this is than `before`, on the same rows, paired."""
        if self.rows.scores is not None:
            return spearman_difference(self.values, before.values, self.rows.scores, data_sha256=self.rows.sha256)
        return compare(self.scores(), before.scores(), name=FOUND, unit="share")

    def scores(self) -> ItemScores:
        """The value of each row."""
        return _items(self.rows, self.values)


def measure(model: SentenceEncoder, rows: RelatedTexts, *, progress: Progress = SILENT) -> Measured:
    """Embed all texts of `rows`, each once, and look at how near they lie."""
    texts = sorted({text for column in rows.columns for text in column})
    number = {text: place for place, text in enumerate(texts)}
    vectors = model.embeddings(texts, progress=progress).vectors
    places = [np.array([number[text] for text in column]) for column in rows.columns]
    if rows.scores is not None:
        alike = model.pair_similarity(vectors[places[0]], vectors[places[1]])
        return Measured(rows, alike.astype(np.float64), np.empty(0))
    ranks = _ranks(model, rows, [vectors[place] for place in places])
    return Measured(rows, (ranks == 1).astype(np.float64), ranks)


def _ranks(model: SentenceEncoder, rows: RelatedTexts, vectors: list[Any]) -> Floats:
    """The place of each row's second text among the second (and third) texts of all rows; equal ones count as worse.

    Candidates that are the same text, or the second text of a row with the same first one, do not count.
    """
    same = rows.comparable()
    names = same[:, 1:].T.ravel()
    anchors = np.tile(same[:, 0], same.shape[1] - 1)
    is_second = np.arange(len(names)) < len(rows)
    candidates = np.concatenate(vectors[1:])
    ranks = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = np.arange(start, min(start + _ROWS_AT_ONCE, len(rows)))
        alike = model.similarity(vectors[0][some], candidates)
        right = alike[np.arange(len(some)), some]
        also_right = names[None, :] == same[some, 1, None]
        also_right |= (anchors[None, :] == same[some, 0, None]) & is_second[None, :]
        ranks[some] = 1 + ((alike >= right[:, None]) & ~also_right).sum(1)
    return ranks


def _items(rows: RelatedTexts, values: Floats) -> ItemScores:
    return ItemScores(rows.ids, values, np.ones(len(values)))
