"""How well targets are written: for pairs of texts, the records of the metrics that suit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rung.data.pairs import Pairs
from rung.evaluation.rouge import rouge_records
from rung.evaluation.translation import bleu_scores, translation_records
from rung.progress import Progress
from rung.records import ItemScores, Record
from rung.tasks.rewriting.rewriter import Rewriter

_WRITTEN_AT_ONCE = 256
_LONG_TARGET = 18
"""Mean words of targets from which ROUGE is measured too: it is made for summaries, of a sentence or more."""


@dataclass(frozen=True)
class Measured:
    """What was written for the sources of `pairs` (those that fit), in their order, and how good it is."""

    pairs: Pairs
    written: list[str]
    records: list[Record]
    scores: dict[str, ItemScores]


def write_all(
    rewriter: Rewriter, sources: Sequence[str], progress: Progress, *, beams: int | None = None, label: str = "writing"
) -> list[str]:
    """What `rewriter` makes of each source. GenerationError for one that is too long."""
    written: list[str] = []
    with progress.task(label, len(sources), "texts") as advance:
        for start in range(0, len(sources), _WRITTEN_AT_ONCE):
            some = sources[start : start + _WRITTEN_AT_ONCE]
            written += rewriter.rewrite(some, beams=beams)
            advance(len(some))
    return written


def fitting(rewriter: Rewriter, pairs: Pairs) -> Pairs:
    """The pairs whose source the network can read."""
    lengths = rewriter.encode(pairs.sources).lengths
    return pairs.take(np.flatnonzero(lengths <= rewriter.context_length))


def measure(rewriter: Rewriter, pairs: Pairs, progress: Progress, *, label: str = "writing") -> Measured:
    """Write for all sources by beam search and compare with the targets.

    Sources longer than the network reads count in no metric, and the records say how many there are.
    """
    kept = fitting(rewriter, pairs)
    written = write_all(rewriter, kept.sources, progress, label=label)
    records = translation_records(kept.ids, written, kept.targets, data_sha256=kept.sha256)
    scores: dict[str, ItemScores] = {}
    if _mean_words(kept.targets) >= _LONG_TARGET:
        rouge, scores = rouge_records(kept.ids, written, kept.targets, data_sha256=kept.sha256)
        records = [*rouge, *records]
    beam = rewriter.beam
    how = f"beams {beam.num_beams}, length penalty {beam.length_penalty:g}"
    if left_out := len(pairs) - len(kept):
        how += f"; {left_out:,} sources longer than {rewriter.context_length:,} tokens left out"
    records = [record.model_copy(update={"signature": f"{record.signature}; {how}"}) for record in records]
    return Measured(kept, written, records, scores)


def _mean_words(texts: Sequence[str]) -> float:
    return sum(len(text.split()) for text in texts) / max(len(texts), 1)


def quick_bleu(rewriter: Rewriter, pairs: Pairs, progress: Progress) -> float:
    """BLEU of greedy targets: to watch training by, and to choose weights."""
    written = write_all(rewriter, pairs.sources, progress, beams=1, label="validating")
    return bleu_scores(pairs.ids, written, pairs.targets).value
