"""A rung that was asked about a sample of the test items only is compared with others on that sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rung.comparison.verdict import RungScores, judge
from rung.data.labelled import LabelledItems
from rung.errors import EvaluationError
from rung.evaluation.learning_curve import CurveScores
from rung.evaluation.summed import SummedScores
from rung.records import ItemScores
from rung.tasks.classification.predictions import Predictions
from rung.tasks.classification.task import ClassificationTask


def scores(right: list[int], ids: list[str] | None = None) -> ItemScores:
    ids = ids or [f"item-{number:03}" for number in range(len(right))]
    return ItemScores(ids, np.array(right, dtype=float), np.ones(len(right)))


def test_pairs_are_compared_on_what_both_answered() -> None:
    draw = np.random.default_rng(0)
    whole, sampled = draw.integers(0, 2, 200).tolist(), draw.integers(0, 2, 60).tolist()
    small = RungScores("linear", [scores(whole)], [0.5])
    large = RungScores("prompted", [scores(sampled)], [0.5], is_pretrained_language_model=True, is_sampled=True)
    cut = RungScores("linear", [scores(whole[:60])], [0.5])
    (pair,), (expected,) = (judge({"linear": one}, large, margin=0.05).pairs for one in (small, cut))
    assert pair == expected
    assert pair.difference.n == 60
    (turned,) = judge({"prompted": large}, small, margin=0.05).pairs
    assert turned.difference.value == pytest.approx(-(expected.difference.value or 0))


def test_items_that_are_no_sample_of_one_another_are_refused() -> None:
    first = RungScores("one", [scores([1, 0, 1], ["a", "b", "c"])], [0.5], is_sampled=True)
    for ids in (["b", "c", "d"], ["a", "b"]):  # where the sample is of more than the other was asked, something is lost
        second = RungScores("other", [scores([1, 0, 1][: len(ids)], ids)], [0.5])
        with pytest.raises(EvaluationError, match="different items"):
            judge({"one": first}, second, margin=0.05)


def test_curves_are_cut_to_the_sample() -> None:
    fits = [[SummedScores.of_items(scores([1, 0, 1, 1]))], [SummedScores.of_items(scores([1, 1, 0, 1]))]]
    curve = CurveScores([10, 20], fits)
    assert curve.among({"item-000", "item-001", "item-002", "item-003", "item-004"}) is curve
    assert curve.among({"item-001", "item-002"}).values.tolist() == [0.5, 0.5]


def test_a_task_scores_the_first_items_without_those_that_leaked(tmp_path: Path) -> None:
    ids, names = [f"{number:02}" for number in range(6)], ("no", "yes")
    items = LabelledItems(ids, ids, np.array([0, 1, 0, 1, 0, 1]), names)
    leaked = np.array([False, True, False, False, False, True])
    task = ClassificationTask({"train": items, "valid": items, "test": items}, leaked=leaked)
    all_yes = Predictions(np.tile([0.2, 0.8], (4, 1)))
    found = task.primary(all_yes, "test")
    assert isinstance(found, ItemScores)
    assert (found.ids, found.values.tolist()) == (["00", "02", "03"], [0.0, 0.0, 1.0])
    records, _ = task.score(all_yes, None)
    assert {record.n for record in records if record.name == "accuracy"} == {3}
    assert task.details(all_yes, "test")["leaked"] == {"n": 1, "accuracy": 1.0}
    path = tmp_path / "predictions.safetensors"
    task.write_predictions(path, {"test": all_yes})
    np.testing.assert_array_equal(task.read_predictions(path, "test").labels, all_yes.labels)
    everyone = Predictions(np.tile([0.8, 0.2], (6, 1)))
    assert [one["id"] for one in task.differing(all_yes, everyone, "test")] == ids[:4]
