"""A number is a record, and records over different things refuse to be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rung.errors import EvaluationError
from rung.records import Interval, ItemScores, Record, paired, require_comparable

floats = st.floats(allow_nan=False, allow_infinity=False)


def record(**changes: object) -> Record:
    known = {"name": "bits_per_byte", "value": 2.0, "unit": "bits/byte", "n": 10, "data_sha256": "ab"}
    return Record.model_validate(known | changes)


def scores(ids: str, values: list[float], weights: list[float] | None = None) -> ItemScores:
    return ItemScores(list(ids), np.array(values), np.array(weights or [1.0] * len(values)))


def test_a_record_tells_its_interval_and_unit() -> None:
    measured = record(interval=Interval(low=1.9, high=2.1, method="bootstrap over documents"))
    assert str(measured) == "bits_per_byte: 2.0000 [1.9000, 2.1000] bits/byte (n=10)"
    assert Record.model_validate_json(measured.model_dump_json()) == measured


def test_not_measured_is_a_legal_value() -> None:
    missing = record(value=None, not_measured="no meter in this machine")
    assert str(missing) == "bits_per_byte: not measured (no meter in this machine)"


@pytest.mark.parametrize(
    "changes", [{"value": None}, {"not_measured": "why?"}, {"n": -1}, {"colour": "red"}, {"value": "much"}]
)
def test_a_record_is_a_value_or_a_reason_and_nothing_else(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        record(**changes)


def test_a_record_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        record().value = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("change", [{"name": "accuracy"}, {"unit": "nats"}, {"data_sha256": "cd"}, {"n": 11}])
def test_records_of_different_things_refuse_to_be_compared(change: dict[str, object]) -> None:
    require_comparable(record(), record(value=3.0, signature="other"))
    with pytest.raises(EvaluationError, match=next(iter(change))):
        require_comparable(record(), record(**change))


def test_the_mean_is_a_ratio_of_sums() -> None:
    assert scores("ab", [1.0, 8.0], [1.0, 2.0]).mean == 3.0


def test_scores_are_paired_by_item() -> None:
    first, second = paired(scores("abc", [1, 2, 3], [1, 2, 3]), scores("cab", [30, 10, 20], [3, 1, 2]))
    assert first.ids == second.ids == ["a", "b", "c"]
    assert second.values.tolist() == [10, 20, 30]
    assert second.weights.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (scores("abd", [1, 2, 3]), "2 are only in one of them"),
        (scores("ab", [1, 2]), "1 are only in one of them"),
        (scores("abc", [1, 2, 3], [1, 1, 2]), "weigh the same items differently"),
    ],
)
def test_scores_over_other_items_refuse_to_be_paired(other: ItemScores, told: str) -> None:
    with pytest.raises(EvaluationError, match=told):
        paired(scores("abc", [1, 2, 3]), other)


def test_scores_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(EvaluationError, match="do not match"):
        scores("abc", [1.0, 2.0])
    with pytest.raises(EvaluationError, match="not unique"):
        scores("aa", [1.0, 2.0])


@given(items=st.dictionaries(st.text(max_size=12), st.tuples(floats, floats), max_size=20))
def test_scores_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, items: dict[str, tuple[float, float]]
) -> None:
    path = tmp_path_factory.mktemp("scores") / "scores" / "bits.jsonl"
    values, weights = ([pair[column] for pair in items.values()] for column in (0, 1))
    written = ItemScores(list(items), np.array(values), np.array(weights))
    written.save(path)
    read = ItemScores.load(path)
    assert read.ids == written.ids
    assert np.array_equal(read.values, written.values)
    assert np.array_equal(read.weights, written.weights)
    assert all(json.loads(line).keys() == {"id", "value", "weight"} for line in path.read_text().splitlines())


def test_scores_are_written_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "bits.jsonl"
    scores("ab", [1.0, 2.0]).save(path)
    scores("abc", [1.0, 2.0, 3.0]).save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bits.jsonl"]
    assert len(ItemScores.load(path).ids) == 3
