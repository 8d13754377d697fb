"""ROUGE against the package that papers use."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.errors import EvaluationError
from rung.evaluation.rouge import longest_common_subsequence, rouge_records, rouge_scores

rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

NAMES = ["rouge1", "rouge2", "rougeL"]
TEXTS = st.text(alphabet="abAB 12.ßé-\n", max_size=40)


def oracle(hypothesis: str, reference: str) -> list[float]:
    found = rouge_scorer.RougeScorer(NAMES).score(reference, hypothesis)
    return [found[name].fmeasure for name in NAMES]


def ours(hypothesis: str, reference: str) -> list[float]:
    scores = rouge_scores(["x"], [hypothesis], [reference])
    return [scores[name].mean for name in NAMES]


@given(TEXTS, TEXTS)
def test_any_two_texts_score_as_rouge_score_scores_them(hypothesis: str, reference: str) -> None:
    assert ours(hypothesis, reference) == pytest.approx(oracle(hypothesis, reference), abs=1e-12)


def test_real_summaries_score_as_rouge_score_scores_them(rung_data: Path) -> None:
    texts = sentences(rung_data)
    for first, second in pairwise(texts[:61]):
        assert ours(first, second) == pytest.approx(oracle(first, second), abs=1e-12)
    records, scores = rouge_records([str(i) for i in range(60)], texts[:60], texts[1:61])
    expected = [oracle(*pair) for pair in pairwise(texts[:61])]
    for place, record in enumerate(records):
        assert record.value == pytest.approx(sum(row[place] for row in expected) / 60)
        assert record.interval is not None
        assert record.interval.low <= record.value <= record.interval.high
        assert scores[record.name].mean == record.value


def sentences(rung_data: Path) -> list[str]:
    """A hundred summaries of dialogues."""
    lines = (rung_data / "dialogsum" / "dev.jsonl").read_text(encoding="utf-8").splitlines()[:100]
    return [next(value for key, value in json.loads(line).items() if key.startswith("summary")) for line in lines]


@given(st.lists(st.sampled_from("abc"), max_size=9), st.lists(st.sampled_from("abc"), max_size=9))
def test_the_longest_common_subsequence_is_that_of_the_table(first: list[str], second: list[str]) -> None:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, left in enumerate(first):
        for j, right in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    assert longest_common_subsequence(first, second) == table[-1][-1]


def test_lists_that_do_not_match_are_refused() -> None:
    with pytest.raises(EvaluationError, match="1 ids, 2 hypotheses"):
        rouge_scores(["x"], ["a", "b"], ["a"])
