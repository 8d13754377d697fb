"""Entities against seqeval, and intervals that hold their figure."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.errors import EvaluationError
from rung.evaluation.entities import Entity, entities, entity_records, entity_scores, has_spans, tag_records

seqeval = pytest.importorskip("seqeval.metrics")
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "S-LOC", "E-PER", "E-LOC", "S-PER"]
SENTENCES = st.lists(st.lists(st.sampled_from(TAGS), min_size=1, max_size=9), min_size=1, max_size=6)


@given(SENTENCES)
def test_entities_are_seqevals(sentences: list[list[str]]) -> None:
    from seqeval.metrics.sequence_labeling import get_entities

    for tags in sentences:
        assert entities(tags) == [Entity(kind, start, stop + 1) for kind, start, stop in get_entities(tags)]


@given(SENTENCES, st.randoms(use_true_random=False))
def test_figures_are_seqevals(sentences: list[list[str]], random: object) -> None:
    predicted = [[random.choice(TAGS) for _ in tags] for tags in sentences]  # type: ignore[attr-defined]
    ids = [str(number) for number in range(len(sentences))]
    scores = entity_scores(ids, predicted, sentences)
    right, found, wanted = scores.totals
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs warns where nothing was predicted
        assert seqeval.precision_score(sentences, predicted) == pytest.approx(right / found if found else 0.0)
        assert seqeval.recall_score(sentences, predicted) == pytest.approx(right / wanted if wanted else 0.0)
        if found + wanted:
            assert seqeval.f1_score(sentences, predicted) == pytest.approx(scores.value)


def test_records_by_type() -> None:
    expected = [["B-PER", "I-PER", "O"], ["B-LOC", "O", "O"], ["O", "B-PER", "O"]] * 10
    predicted = [["B-PER", "I-PER", "O"], ["B-PER", "O", "O"], ["O", "O", "O"]] * 10
    found = {record.name: record for record in entity_records([f"{i:02}" for i in range(30)], predicted, expected)}
    assert found["entity_f1"].value == pytest.approx(2 * 10 / (20 + 30))
    assert found["entity_precision"].value == pytest.approx(1 / 2)
    assert found["entity_recall"].value == pytest.approx(1 / 3)
    assert found["entity_f1.PER"].value == pytest.approx(2 * 10 / (20 + 20))
    assert found["entity_f1.LOC"].value == 0
    spread = found["entity_f1"].interval
    assert spread is not None
    assert spread.low < 0.4 < spread.high


def test_no_entity_at_all_is_not_measured() -> None:
    found = entity_records(["a", "b"], [["O"], ["O"]], [["O"], ["O"]])
    assert [record.value for record in found] == [None, None, None]


def test_words_and_tags_must_match() -> None:
    with pytest.raises(EvaluationError, match="2 predicted tags for 1 words"):
        entity_records(["a"], [["O", "O"]], [["O"]])


def test_accuracy_of_tags() -> None:
    [record] = tag_records(["a", "b"], [["NOUN", "VERB"], ["NOUN"]], [["NOUN", "NOUN"], ["NOUN"]])
    assert record.value == pytest.approx(2 / 3)
    assert not has_spans(["NOUN", "VERB", "O"])
    assert has_spans(["O", "B-PER", "I-PER"])
