"""The feed-forward rung: predictions equal to its network's, a plan that holds, early stopping, real questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rung.data.labelled import LabelledItems, item_ids
from rung.data.ngrams import HashedNgramFinder, HashedNgrams
from rung.errors import PlanError, RunFolderError
from rung.nets.bag import BagClassifier
from rung.progress import SILENT
from rung.runfolder import file_sha256, verify
from rung.tasks.classification.classifier import load_classifier
from rung.tasks.classification.feedforward import FeedForwardRung, load
from rung.tasks.classification.saving import load_arrays
from rung.tasks.classification.task import ClassificationTask
from rung.tasks.task import FitReport


def items(texts: list[str], labels: list[str], names: tuple[str, ...]) -> LabelledItems:
    numbers = np.array([names.index(label) for label in labels], np.int64)
    return LabelledItems(item_ids(texts, labels), texts, numbers, names)


def pairs_task(count: int = 200, valid: int = 40) -> ClassificationTask:
    """Only the order of two words tells the labels apart."""
    random = np.random.default_rng(0)
    names = ("forth", "back")

    def draw(number: int) -> LabelledItems:
        labels = [names[i] for i in random.integers(0, 2, number)]
        middle = {"forth": "north south", "back": "south north"}
        noise = [[f"w{i}" for i in random.integers(0, 5, 2)] for _ in range(number)]
        return items([f"{a} {middle[y]} {b}" for y, (a, b) in zip(labels, noise, strict=True)], labels, names)

    return ClassificationTask({"train": draw(count), "valid": draw(valid), "test": draw(40)})


def fit(task: ClassificationTask, folder: Path, *, seed: int = 0, **changes: Any) -> FitReport:
    rung = FeedForwardRung()
    plan = {**rung.plan(task, None, seed=seed), **changes}
    everything = np.arange(len(task.items["train"]))
    return rung.fit(task, plan, items=everything, seed=seed, folder=folder, progress=SILENT)


@pytest.mark.parametrize("loss", ["softmax", "ova"])
def test_word_order_is_learned_from_pairs_of_words(loss: str, tmp_path: Path) -> None:
    task = pairs_task()
    fit(task, tmp_path / "pairs", loss=loss)
    found = load(tmp_path / "pairs").predict(task.items["test"].texts)
    assert (found.labels == task.items["test"].labels).all()
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    fit(task, tmp_path / "words", loss=loss, ngrams=1)
    alone = load(tmp_path / "words").predict(task.items["test"].texts)
    assert (alone.labels == task.items["test"].labels).mean() < 0.8


@pytest.mark.parametrize("loss", ["softmax", "ova"])
def test_predictions_equal_those_of_the_network(loss: str, tmp_path: Path) -> None:
    task = pairs_task()
    fit(task, tmp_path / "rung", loss=loss, epochs=2)
    config, tensors, words = load_arrays(tmp_path / "rung")
    ngrams = HashedNgrams(tuple(words), tensors["buckets"], config["num_buckets"], config["ngrams"])
    net = BagClassifier(len(ngrams), config["hidden_size"], 2)
    net.load_state_dict({name: torch.from_numpy(tensors[name]) for name in net.state_dict()})
    texts = ["w1 north south w2", "south", "north unheard south", "w0 w0 w0"]
    bags = HashedNgramFinder(ngrams)(texts)
    offsets = torch.from_numpy(np.cumsum(bags.lengths) - bags.lengths)
    with torch.no_grad():
        scores = net({"input_ids": torch.from_numpy(bags.values), "offsets": offsets}).double()
    expected = scores.softmax(1) if loss == "softmax" else scores.sigmoid() / scores.sigmoid().sum(1, keepdim=True)
    found = load(tmp_path / "rung").predict(texts).probabilities
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    alone = np.concatenate([load(tmp_path / "rung").predict([text]).probabilities for text in texts])
    np.testing.assert_array_equal(found, alone)


def test_a_text_of_which_nothing_is_known_gets_the_shares_of_labels(tmp_path: Path) -> None:
    task = pairs_task()
    fit(task, tmp_path / "rung", epochs=1)
    found = load_classifier(tmp_path / "rung").predict(["", "unheard of"]).probabilities
    shares = np.bincount(task.items["train"].labels) / len(task.items["train"])
    np.testing.assert_allclose(found, [shares, shares])


def test_an_equal_plan_and_seed_give_equal_weights(tmp_path: Path) -> None:
    task = pairs_task()
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        fit(task, tmp_path / name, seed=seed, epochs=2)
    one, two, three = (file_sha256(tmp_path / name / "model.safetensors") for name in ("one", "two", "three"))
    assert one == two
    assert one != three


def test_training_stops_when_validation_gets_no_better_and_leaves_nothing_else(tmp_path: Path) -> None:
    report = fit(pairs_task(), tmp_path / "rung", epochs=500, patience=2, learning_rate=0.5)
    assert report.epochs is not None
    assert report.epochs < 400
    assert "no better" in report.note
    header = verify(tmp_path / "rung")
    assert sorted(header["files"]) == ["config.json", "model.safetensors", "vocabulary.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["rung"]


def test_without_validation_items_all_epochs_are_trained(tmp_path: Path) -> None:
    report = fit(pairs_task(valid=0), tmp_path / "rung", epochs=3)
    assert report.epochs == pytest.approx(3, abs=0.1)


def test_a_handful_of_items_is_enough_to_fit(tmp_path: Path) -> None:
    task = pairs_task()
    rung = FeedForwardRung()
    plan = rung.plan(task, None, seed=0)
    chosen = np.array([0, 1, 2])
    rung.fit(task, plan, items=chosen, seed=0, folder=tmp_path / "rung", progress=SILENT)
    assert load(tmp_path / "rung").predict(["north south"]).probabilities.shape == (1, 2)


def test_the_plan_gives_the_epochs_that_fit() -> None:
    task = pairs_task()
    rung = FeedForwardRung()
    free = rung.plan(task, None, seed=0)
    assert rung.plan(task, 1000.0, seed=0) == free
    with pytest.raises(PlanError, match="does not fit"):
        rung.plan(task, 1e-4, seed=0)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    fit(pairs_task(), tmp_path / "rung", epochs=1)
    path = tmp_path / "rung" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "bert"}))
    with pytest.raises(RunFolderError, match="is no rung-feedforward"):
        load(tmp_path / "rung")


def test_questions_of_trec_are_told_apart(rung_data: Path, tmp_path: Path) -> None:
    """fastText itself has 89.0 to 90.0 here: bench/feedforward.py."""
    parts = {}
    for part in ("train", "test"):
        lines = (rung_data / "trec" / f"{part}.jsonl").read_text(encoding="utf-8").strip().split("\n")
        rows = [json.loads(line) for line in lines]
        parts[part] = [row["text"] for row in rows], [row["label"] for row in rows]
    names = tuple(sorted(set(parts["train"][1])))
    (texts, labels), test = parts["train"], items(*parts["test"], names)
    whole = items(texts, labels, names)
    order = np.argsort(whole.ids)
    task = ClassificationTask({"train": whole.take(order[500:]), "valid": whole.take(order[:500]), "test": test})
    fit(task, tmp_path / "rung")
    found = load(tmp_path / "rung").predict(test.texts).labels
    assert 100 * (found == test.labels).mean() >= 88
