"""Classification as a task: learning-curve subsets, what leaked, and predictions that survive a crash."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.labelled import LabelledItems, item_ids
from rung.errors import DataError
from rung.tasks.classification.predictions import Predictions
from rung.tasks.classification.reading import DataSources, read_task
from rung.tasks.classification.task import ClassificationTask


def items(count: int, classes: int = 3, prefix: str = "text") -> LabelledItems:
    """Numbered texts; class k has about twice as many as class k + 1."""
    labels = np.array([min(int(np.log2(1 + number % 2**classes)), classes - 1) for number in range(count)])
    texts = [f"{prefix} {number}" for number in range(count)]
    names = tuple(f"class {label}" for label in range(classes))
    ids = item_ids(texts, [names[label] for label in labels])
    return LabelledItems(ids, texts, labels, names)


def task(train: int = 500, leaked: np.ndarray | None = None) -> ClassificationTask:
    """Three parts."""
    return ClassificationTask(
        {"train": items(train), "valid": items(100, prefix="valid"), "test": items(50, prefix="test")}, leaked=leaked
    )


@given(st.integers(0, 20), st.integers(20, 200), st.integers(201, 499))
def test_subsets_are_nested_and_stratified(seed: int, small: int, large: int) -> None:
    whole = task()
    _, fewer = whole.learning_subset(small, seed=seed)
    _, more = whole.learning_subset(large, seed=seed)
    assert len(fewer) == small
    assert set(fewer) <= set(more)
    labels = whole.items["train"].labels
    everything = np.bincount(labels, minlength=3) / len(labels)
    assert np.abs(np.bincount(labels[fewer], minlength=3) / small - everything).max() <= 1.5 / small + 1e-9


def test_the_validation_part_shrinks_in_proportion_and_the_test_part_stays() -> None:
    whole = task()
    smaller, _ = whole.learning_subset(100, seed=1)
    assert len(smaller.items["valid"]) == 20
    assert set(smaller.items["valid"].ids) < set(whole.items["valid"].ids)
    assert smaller.items["test"] is whole.items["test"]
    same, everything = whole.learning_subset(500, seed=1)
    assert same is whole
    assert len(everything) == 500


def test_learning_sizes_end_with_all_items() -> None:
    assert task(train=1300).learning_sizes() == [50, 100, 200, 500, 1000, 1300]
    assert task(train=60).learning_sizes() == [60]


def test_leaked_items_count_in_no_metric_and_are_scored_apart() -> None:
    leaked = np.zeros(50, bool)
    leaked[:10] = True
    tested = task(leaked=leaked)
    truth = tested.items["test"].labels
    probabilities = np.full((50, 3), 0.1)
    said = np.where(leaked, truth, (truth + 1) % 3)  # right on the leaked ones only
    probabilities[np.arange(50), said] = 0.8
    predictions = Predictions(probabilities)
    records = {record.name: record for record in tested.score(predictions, None)[0]}
    assert records["accuracy"].value == 0.0
    assert records["accuracy"].n == 40
    assert tested.details(predictions, "test")["leaked"] == {"n": 10, "accuracy": 1.0}


def test_predictions_come_back_as_they_were_kept(tmp_path: Path) -> None:
    whole = task()
    failed = np.zeros(50, bool)
    failed[3] = True
    kept = Predictions(np.full((50, 3), 1 / 3), failed)
    whole.write_predictions(tmp_path / "p.safetensors", {"test": kept})
    found = whole.read_predictions(tmp_path / "p.safetensors", "test")
    assert np.array_equal(found.probabilities, kept.probabilities)
    assert found.labels[3] == -1


def test_items_that_two_rungs_answer_differently_are_told_by_name() -> None:
    whole = task()
    first, second = np.full((50, 3), 0.2), np.full((50, 3), 0.2)
    first[:, 0] = 0.6
    second[:, 0] = 0.6
    second[7] = (0.2, 0.2, 0.6)
    (found,) = whole.differing(Predictions(first), Predictions(second), "test")
    assert found["text"] == "test 7"
    assert (found["first"], found["second"]) == ("class 0", "class 2")


@pytest.mark.parametrize("order", [list(range(30)), list(range(29, -1, -1))])
def test_item_ids_do_not_depend_on_the_order_of_rows(order: list[int]) -> None:
    texts, labels = [f"t{number % 20}" for number in order], [str(number % 2) for number in order]
    assert sorted(item_ids(texts, labels)) == sorted(item_ids(texts[::-1], labels[::-1]))


def labelled_file(path: Path, count: int) -> Path:
    lines = [json.dumps({"text": f"{path.stem} number {n} of them", "label": "ab"[n % 2]}) for n in range(count)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_eight_labels_a_class_are_enough_where_test_items_are_given(tmp_path: Path) -> None:
    few, test = labelled_file(tmp_path / "few.jsonl", 16), labelled_file(tmp_path / "test.jsonl", 40)
    found = read_task(DataSources([few], "label", ["text"], test=[test]), seed=0, threads=1)
    assert {part: len(items) for part, items in found.items.items()} == {"train": 14, "valid": 2, "test": 40}
    with pytest.raises(DataError, match="16 labelled rows are too few to train and test on: at least 20") as caught:
        read_task(DataSources([few], "label", ["text"]), seed=0, threads=1)
    assert "with --test FILE 8 are enough" in str(caught.value.hint)
    fewer = labelled_file(tmp_path / "fewer.jsonl", 7)
    with pytest.raises(DataError, match="7 labelled rows are too few to train on: at least 8"):
        read_task(DataSources([fewer], "label", ["text"], test=[test]), seed=0, threads=1)
