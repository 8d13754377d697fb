"""Named entities: the spans that tags stand for, and precision, recall and F1 over whole spans.

The rules are those of the CoNLL evaluation (Tjong Kim Sang and De Meulder 2003, `conlleval`), which seqeval repeats in
its default mode: `B-` begins a span, `I-` goes on with one of the same type and else begins one, anything else ends it.
`S-`/`U-` (a span of one word), `E-`/`L-` (its last word) are understood too. A span counts when both borders and the
type are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rung.errors import EvaluationError
from rung.evaluation.intervals import intervals
from rung.evaluation.summed import SummedScores, ratio
from rung.records import Record

_BEGINS, _ENDS = frozenset("BSU"), frozenset("ELSU")
_PREFIXES = frozenset("BIESLU")

Floats = NDArray[np.float64]


class Entity(NamedTuple):
    """Words `start` up to but without `stop` of a sentence."""

    type: str
    start: int
    stop: int


def has_spans(tag_names: Sequence[str]) -> bool:
    """Whether tags mark spans (`B-PER`, `I-PER`, `O`) rather than single words (`NOUN`)."""
    return all(name == "O" or (name[:1] in _PREFIXES and name[1:2] == "-" and len(name) > 2) for name in tag_names)


def entities(tags: Sequence[str]) -> list[Entity]:
    """The spans of one sentence, in their order."""
    found: list[Entity] = []
    start, kind, ended = 0, "", True
    for place, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        if kind and (mark == "O" or mark in _BEGINS or name != kind or ended):
            found.append(Entity(kind, start, place))
            kind = ""
        if mark != "O":
            if not kind:
                start, kind = place, name
            ended = mark in _ENDS
    return found


def entity_records(
    ids: Sequence[str],
    predicted: Sequence[Sequence[str]],
    expected: Sequence[Sequence[str]],
    *,
    data_sha256: str | None = None,
) -> list[Record]:
    """F1, precision and recall over all entities (micro), then F1 of each type; bootstrap intervals over sentences.

    Raises EvaluationError when sentences and their tags do not match. A figure without any entity is not measured.
    """
    overall = entity_scores(ids, predicted, expected)
    measured = [
        ("entity_f1", overall),
        ("entity_precision", SummedScores(overall.ids, overall.codes, overall.rows[:, [0, 1]], _share)),
        ("entity_recall", SummedScores(overall.ids, overall.codes, overall.rows[:, [0, 2]], _share)),
    ]
    for name in sorted({one.type for tags in expected for one in entities(tags)}):
        measured.append((f"entity_f1.{name}", entity_scores(ids, predicted, expected, only=name)))
    records = []
    for name, scores in measured:
        exists = bool(np.isfinite(scores.value))
        records.append(
            Record(
                name=name,
                value=scores.value if exists else None,
                not_measured=None if exists else "there is no such entity",
                unit="share",
                n=len(ids),
                interval=intervals([scores])[0] if exists else None,
                signature="whole spans, rules of CoNLL-2003, micro average; drawn by sentence",
                data_sha256=data_sha256,
            )
        )
    return records


def entity_scores(
    ids: Sequence[str],
    predicted: Sequence[Sequence[str]],
    expected: Sequence[Sequence[str]],
    *,
    only: str | None = None,
) -> SummedScores:
    """What each sentence adds to F1: spans that are right, predicted and expected, of the type `only` or of all."""
    rows = np.zeros((len(ids), 3))
    for place, (item, ours, theirs) in enumerate(zip(ids, predicted, expected, strict=True)):
        if len(ours) != len(theirs):
            raise EvaluationError(f"{len(ours)} predicted tags for {len(theirs)} words", where=f"sentence {item}")
        found, wanted = ({one for one in entities(tags) if only in (None, one.type)} for tags in (ours, theirs))
        rows[place] = len(found & wanted), len(found), len(wanted)
    distinct, codes = np.unique(rows, axis=0, return_inverse=True)
    return SummedScores(list(ids), codes.reshape(-1).astype(np.int64), distinct, span_f1)


def span_f1(totals: Floats) -> Floats:
    """F1 from totals (..., 3) of spans that are right, predicted and expected; NaN where there is neither."""
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * totals[..., 0] / (totals[..., 1] + totals[..., 2]))


def _share(totals: Floats) -> Floats:
    """The first of two totals (..., 2) over the second; NaN of nothing."""
    with np.errstate(invalid="ignore"):
        return ratio(totals)


def tag_records(
    ids: Sequence[str],
    predicted: Sequence[Sequence[str]],
    expected: Sequence[Sequence[str]],
    *,
    data_sha256: str | None = None,
) -> list[Record]:
    """The share of words whose tag is right, with a bootstrap interval over sentences."""
    rows = np.array(
        [
            (sum(one == other for one, other in zip(ours, theirs, strict=True)), len(theirs))
            for ours, theirs in zip(predicted, expected, strict=True)
        ],
        dtype=np.float64,
    )
    scores = SummedScores(list(ids), np.arange(len(ids)), rows, ratio)
    return [
        Record(
            name="tag_accuracy",
            value=scores.value,
            unit="share",
            n=len(ids),
            interval=intervals([scores])[0],
            signature="share of words; drawn by sentence",
            data_sha256=data_sha256,
        )
    ]
