"""BLEU and chrF as sums over sentences against sacrebleu, which knows nothing of our sums."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.errors import EvaluationError
from rung.evaluation.paired_tests import approximate_randomisation
from rung.evaluation.summed import SummedScores
from rung.evaluation.translation import bleu_scores, chrf_scores, translation_records

sacrebleu = pytest.importorskip("sacrebleu")

WORDS = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "a", "mat", ".", "Straße", "3.5", "don't", "-", "😀"]), max_size=9
)
PAIRS = st.lists(st.tuples(WORDS.map(" ".join), WORDS.filter(bool).map(" ".join)), min_size=1, max_size=6)
MANY = [
    ("a cat sat on the mat .", "the cat sat on the mat ."),
    ("Straße nass", "die Straße ist nass"),
    ("", "so what ?"),
]


def numbered(pairs: list[tuple[str, str]]) -> tuple[list[str], list[str], list[str]]:
    hypotheses, references = (list(side) for side in zip(*pairs, strict=True))
    return [str(number) for number in range(len(pairs))], hypotheses, references


@given(PAIRS)
def test_both_metrics_equal_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    ids, hypotheses, references = numbered(pairs)
    expected = sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert bleu_scores(ids, hypotheses, references).value == pytest.approx(expected, abs=1e-9)
    expected = sacrebleu.corpus_chrf(hypotheses, [references]).score
    assert chrf_scores(ids, hypotheses, references).value == pytest.approx(expected, abs=1e-9)


def test_leaving_an_item_out_is_scoring_the_others() -> None:
    ids, hypotheses, references = numbered(MANY * 2)
    for make in (bleu_scores, chrf_scores):
        left_out = make(ids, hypotheses, references).left_out()
        for place in range(len(ids)):
            others = [[side[i] for i in range(len(ids)) if i != place] for side in (ids, hypotheses, references)]
            assert left_out[place] == pytest.approx(make(*others).value)


def test_records_carry_interval_and_signature() -> None:
    ids, hypotheses, references = numbered(MANY * 20)
    bleu, chrf = translation_records(ids, hypotheses, references, data_sha256="abc")
    assert bleu.signature.startswith("sacrebleu nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert chrf.signature.startswith("sacrebleu nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    for record in (bleu, chrf):
        assert (record.n, record.data_sha256) == (60, "abc")
        assert record.value is not None
        assert record.interval is not None
        assert record.interval.low < record.value < record.interval.high


def test_two_systems_are_compared_by_paired_randomisation() -> None:
    ids, hypotheses, references = numbered(MANY * 20)
    worse = [" ".join(text.split()[::-1]) for text in hypotheses]
    first, second = bleu_scores(ids, hypotheses, references), bleu_scores(ids, worse, references)
    assert approximate_randomisation(first, second) < 0.01
    assert approximate_randomisation(first, first) == 1.0


def test_wrong_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (bleu_scores, chrf_scores):
        with pytest.raises(EvaluationError, match="1 ids, 2 hypotheses and 1 references"):
            make(["x"], ["a", "b"], ["a"])
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(EvaluationError, match="need the package sacrebleu"):
        bleu_scores(["x"], ["a"], ["a"])


def test_the_order_of_sentences_does_not_matter() -> None:
    ids, hypotheses, references = numbered(MANY)
    forward = bleu_scores(ids, hypotheses, references)
    backward: SummedScores = bleu_scores(ids[::-1], hypotheses[::-1], references[::-1])
    assert np.array_equal(forward.left_out(), backward.left_out())
