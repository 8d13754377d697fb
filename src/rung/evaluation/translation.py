"""BLEU and chrF of translations, as functions of sums over sentences, with intervals.

Tokenisation and n-gram counts of BLEU are sacrebleu's (Post 2018, arXiv 1804.08771), so that figures can be compared
with those of others; the signature says by which settings. Both metrics are functions of totals over sentences
(`rung.evaluation.summed`), so the bootstrap draws sentences and never counts an n-gram twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.errors import EvaluationError
from rung.evaluation.intervals import intervals
from rung.evaluation.summed import SummedScores
from rung.records import Record

_BLEU_ORDER = 4
_CHRF_ORDER, _CHRF_BETA = 6, 2.0

Floats = NDArray[np.float64]


def translation_records(
    ids: Sequence[str], hypotheses: Sequence[str], references: Sequence[str], *, data_sha256: str | None = None
) -> list[Record]:
    """BLEU and chrF, 0 to 100, each with a bootstrap interval over sentences and sacrebleu's signature.

    Raises EvaluationError when sacrebleu is missing or the lists differ in length.
    """
    library = _sacrebleu()
    scores = [bleu_scores(ids, hypotheses, references), chrf_scores(ids, hypotheses, references)]
    records = []
    for name, one, spread in zip(("bleu", "chrf"), scores, intervals(scores), strict=True):
        metric = (library.BLEU if name == "bleu" else library.CHRF)()
        metric.corpus_score(list(hypotheses[:1]), [list(references[:1])])  # only then it knows its whole signature
        records.append(
            Record(
                name=name,
                value=one.value,
                unit="points of 100",
                n=len(ids),
                interval=spread,
                signature=f"sacrebleu {metric.get_signature()}",
                data_sha256=data_sha256,
            )
        )
    return records


def require_sacrebleu() -> None:
    """Say now, not after half an hour of training, that the result could not be measured: EvaluationError."""
    _sacrebleu()


def bleu_scores(ids: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> SummedScores:
    """What each sentence adds to corpus BLEU (Papineni et al. 2002): lengths, matches and n-grams of orders 1 to 4.

    Raises EvaluationError when sacrebleu is missing or the lists differ in length.
    """
    _require_aligned(ids, hypotheses, references)
    metric = _sacrebleu().BLEU(effective_order=True)  # of one sentence; its counts are those of the corpus metric
    rows = np.empty((len(ids), 2 + 2 * _BLEU_ORDER))
    for place, (hypothesis, reference) in enumerate(zip(hypotheses, references, strict=True)):
        found = metric.sentence_score(hypothesis, [reference])
        rows[place] = [found.sys_len, found.ref_len, *found.counts, *found.totals]
    return SummedScores(list(ids), np.arange(len(ids)), rows, bleu)


def chrf_scores(ids: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> SummedScores:
    """What each sentence adds to corpus chrF (Popović 2015): character n-grams of orders 1 to 6, without white space.

    Raises EvaluationError when the lists differ in length.
    """
    _require_aligned(ids, hypotheses, references)
    rows = np.array([_chrf_row(*pair) for pair in zip(hypotheses, references, strict=True)], dtype=np.float64)
    return SummedScores(list(ids), np.arange(len(ids)), rows.reshape(len(ids), 3 * _CHRF_ORDER), chrf)


def bleu(totals: Floats) -> Floats:
    """Corpus BLEU from totals (..., 10) of `bleu_scores`, smoothed as mteval does ("exp")."""
    written, wanted = totals[..., 0], totals[..., 1]
    correct, total = totals[..., 2 : 2 + _BLEU_ORDER], totals[..., 2 + _BLEU_ORDER :]
    missed = (correct == 0) & (total > 0)
    halvings = np.cumsum(missed, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(missed, 0.5**halvings, correct) / total
        shortness = np.minimum(0.0, 1 - wanted / written)
        score = 100 * np.exp(shortness + np.log(precision).mean(-1))
    return np.where(correct.any(-1) & (total > 0).all(-1) & (written > 0), score, 0.0)


def chrf(totals: Floats) -> Floats:
    """Corpus chrF2 from totals (..., 18) of `chrf_scores`: precision and recall averaged over orders that occur."""
    counts = totals.reshape(*totals.shape[:-1], _CHRF_ORDER, 3)
    written, wanted, matched = counts[..., 0], counts[..., 1], counts[..., 2]
    occurs = (written > 0) & (wanted > 0)
    orders = np.maximum(occurs.sum(-1), 1)
    precision = (np.divide(matched, written, out=np.zeros_like(matched), where=occurs)).sum(-1) / orders
    recall = (np.divide(matched, wanted, out=np.zeros_like(matched), where=occurs)).sum(-1) / orders
    weight = _CHRF_BETA**2
    both = weight * precision + recall
    return np.asarray(100 * np.divide((1 + weight) * precision * recall, both, out=np.zeros_like(both), where=both > 0))


def _chrf_row(hypothesis: str, reference: str) -> list[int]:
    written, wanted = "".join(hypothesis.split()), "".join(reference.split())
    row = []
    for order in range(1, _CHRF_ORDER + 1):
        ours, theirs = (
            Counter(text[i : i + order] for i in range(len(text) - order + 1)) for text in (written, wanted)
        )
        row += [ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()]
    return row


def _require_aligned(ids: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if not len(ids) == len(hypotheses) == len(references):
        raise EvaluationError(f"{len(ids)} ids, {len(hypotheses)} hypotheses and {len(references)} references")


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise EvaluationError(
            "BLEU and chrF need the package sacrebleu", hint="install it: pip install 'rung[translate]'"
        ) from error
    return metrics
