"""The counting rungs: equal to scikit-learn's pipelines, published figures, and predicting without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from rung.data.labelled import LabelledItems, item_ids
from rung.data.ngrams import NgramVocabulary
from rung.errors import PlanError, RunFolderError
from rung.progress import SILENT
from rung.runfolder import verify
from rung.tasks.classification import counting
from rung.tasks.classification.counting import LinearRung, MajorityRung, NaiveBayesRung, load
from rung.tasks.classification.task import ClassificationTask
from rung.tasks.task import FitReport, Plan, Rung

Pairs = tuple[list[str], list[str]]
ADJECTIVES = {"good": "praise", "fine": "praise", "bad": "blame", "dull": "blame", "long": "length", "short": "length"}


def items(texts: Sequence[str], labels: Sequence[str], names: Sequence[str]) -> LabelledItems:
    numbers = np.array([names.index(label) for label in labels], np.int64)
    return LabelledItems(item_ids(texts, labels), list(texts), numbers, tuple(names))


def task_of(train: Pairs, valid: Pairs) -> ClassificationTask:
    names = sorted(set(train[1]))
    parts = {"train": items(*train, names), "valid": items(*valid, names), "test": items([], [], names)}
    return ClassificationTask(parts)  # type: ignore[arg-type]


def sentences(count: int, seed: int = 0) -> Pairs:
    random = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        word = str(random.choice(list(ADJECTIVES)))
        rest = " ".join(f"W{i}" for i in random.integers(0, 30, random.integers(1, 8)))
        texts.append(f"{rest} a {word} film {word if random.random() < 0.3 else ''}")
        labels.append(ADJECTIVES[word] if random.random() < 0.9 else "praise")
    return texts, labels


def fit(rung: Rung, task: ClassificationTask, plan: Plan, folder: Path) -> FitReport:
    everything = np.arange(len(task.items["train"]))
    return rung.fit(task, plan, items=everything, seed=0, folder=folder, progress=SILENT)


def spelled(vocabulary: NgramVocabulary | None) -> list[str]:
    """The word or word pair of each column."""
    assert vocabulary is not None
    words = vocabulary.words
    return [
        *words,
        *(
            f"{words[first]} {words[second]}"
            for first, second in np.stack(np.divmod(vocabulary.keys[0], len(words)), 1)
        ),
    ]


@pytest.mark.parametrize("order", [1, 2])
def test_naive_bayes_equals_the_pipeline_of_scikit_learn(order: int, tmp_path: Path) -> None:
    texts, labels = sentences(300)
    fit(NaiveBayesRung(), task_of((texts, labels), ([], [])), {"ngrams": [order]}, tmp_path / "nb")
    vectorizer = CountVectorizer(binary=True, token_pattern=r"\S+", ngram_range=(1, order))  # noqa: S106 - no password
    theirs = make_pipeline(vectorizer, MultinomialNB()).fit(texts, labels)
    asked = [*sentences(100, seed=1)[0], "unheard of", ""]
    np.testing.assert_allclose(
        load(tmp_path / "nb").predict(asked).probabilities, theirs.predict_proba(asked), atol=1e-9
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_equals_the_pipeline_of_scikit_learn(classes: int, tmp_path: Path) -> None:
    pairs = [(t, y) for t, y in zip(*sentences(400), strict=True) if classes == 3 or y != "length"]
    texts, labels = [t for t, _ in pairs], [y for _, y in pairs]
    plan = {"candidates": [{"ngrams": 2, "C": 10.0}], "max_iterations": 1000}
    report = fit(LinearRung(), task_of((texts, labels), ([], [])), plan, tmp_path / "linear")
    predictor = load(tmp_path / "linear")
    columns = spelled(predictor.vocabulary)
    vectorizer = TfidfVectorizer(
        token_pattern=r"\S+",  # noqa: S106 - no password
        ngram_range=(1, 2),
        sublinear_tf=True,
        vocabulary=columns,  # the solver stops at a tolerance: another order of columns, another path to it
    )
    theirs = make_pipeline(vectorizer, LogisticRegression(C=10.0, max_iter=1000)).fit(texts, labels)
    free = TfidfVectorizer(**{**vectorizer.get_params(), "vocabulary": None}).fit(texts)
    assert sorted(columns) == free.get_feature_names_out().tolist()
    asked = sentences(100, seed=1)[0]
    np.testing.assert_allclose(predictor.predict(asked).probabilities, theirs.predict_proba(asked), atol=1e-9)
    assert report.note == ""


def test_what_is_best_on_validation_is_kept_and_told(tmp_path: Path) -> None:
    # Only word pairs tell these labels apart.
    train = (["a b", "b a", "c d", "d c"] * 20, ["x", "y", "x", "y"] * 20)
    valid = (["a b", "b a", "c d", "d c"], ["x", "y", "x", "y"])
    for rung in (NaiveBayesRung(), LinearRung()):
        task = task_of(train, valid)
        report = fit(rung, task, rung.plan(task, None, seed=0), tmp_path / rung.name)
        assert report.chosen["ngrams"] == 2
        predictor = load(tmp_path / rung.name)
        assert predictor.predict(valid[0]).labels.tolist() == [0, 1, 0, 1]
        header = verify(tmp_path / rung.name)
        assert header["chosen"] == report.chosen
        assert header["task"] == "classification"


def test_a_solver_that_does_not_converge_says_so(tmp_path: Path) -> None:
    plan = {"candidates": [{"ngrams": 1, "C": 100.0}], "max_iterations": 2}
    report = fit(LinearRung(), task_of(sentences(200), ([], [])), plan, tmp_path / "linear")
    assert "did not converge in 2 iterations" in report.note


def test_the_plan_takes_what_fits_into_the_time() -> None:
    task = task_of(sentences(300), sentences(50, seed=1))
    rung = LinearRung()
    assert len(rung.plan(task, 1000.0, seed=0)["candidates"]) == len(rung.plan(task, None, seed=0)["candidates"])
    with pytest.raises(PlanError, match="needs about"):
        rung.plan(task, 1e-6, seed=0)


def test_rare_ngrams_are_dropped_where_the_solver_would_need_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_MOST_WEIGHTS", 60)
    task = task_of(sentences(300), sentences(50, seed=1))
    report = fit(LinearRung(), task, {"candidates": [{"ngrams": 2, "C": 1.0}], "max_iterations": 100}, tmp_path / "l")
    assert report.chosen["min_items"] > 1
    model: Any = load(tmp_path / "l").model
    assert model.weights.size <= 60


def test_a_subset_may_lack_a_class_or_hold_only_one(tmp_path: Path) -> None:
    texts, labels = sentences(300)
    task = task_of((texts, labels), sentences(50, seed=1))
    for rung in (MajorityRung(), NaiveBayesRung(), LinearRung()):
        plan = rung.plan(task, None, seed=0)
        for lacking in (["blame"], ["blame", "length"]):
            chosen = np.array([i for i, label in enumerate(labels) if label not in lacking])
            rung.fit(task, plan, items=chosen, seed=0, folder=tmp_path / "rung", progress=SILENT)
            found = load(tmp_path / "rung").predict(["a bad film", ""]).probabilities
            np.testing.assert_allclose(found.sum(axis=1), 1)
            absent = [task.label_names.index(name) for name in lacking]
            assert not found[:, absent].any()


def test_predicting_imports_neither_torch_nor_scikit_learn(tmp_path: Path) -> None:
    task = task_of(sentences(100), ([], []))
    for rung in (MajorityRung(), NaiveBayesRung(), LinearRung()):
        fit(rung, task, rung.plan(task, None, seed=0), tmp_path / rung.name)
        program = (
            "import sys; from pathlib import Path; from rung.tasks.classification.classifier import load_classifier\n"
            f"print(load_classifier(Path({str(tmp_path / rung.name)!r})).classify('a good film')[0].label)\n"
            "print(sorted({'torch', 'sklearn', 'scipy', 'polars'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.split("\n")[:2] == ["praise", "[]"]


def test_a_folder_of_another_kind_or_without_a_part_is_refused(tmp_path: Path) -> None:
    fit(MajorityRung(), task_of(sentences(50), ([], [])), {}, tmp_path / "majority")
    config = tmp_path / "majority" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "model_type": "bert"}))
    with pytest.raises(RunFolderError, match="no counting rung"):
        load(tmp_path / "majority")
    config.write_text("{")
    with pytest.raises(RunFolderError, match="cannot be read"):
        load(tmp_path / "majority")


def test_texts_of_any_kind_are_taken(tmp_path: Path) -> None:
    odd = ["", " \n ", "\ud800 half a pair", "word " * 20_000, "日本語 テキスト", "ИСТАНБУЛ İ ẞ"]
    labels = ["a", "b", "a", "b", "a", "b"]
    for rung in (MajorityRung(), NaiveBayesRung(), LinearRung()):
        task = task_of(sentences(50), ([], []))
        names = sorted({*task.label_names})
        strange = ClassificationTask(
            {"train": items(odd, [names[label == "b"] for label in labels], names), "valid": items([], [], names)}  # type: ignore[dict-item]
        )
        fit(rung, strange, rung.plan(task, None, seed=0), tmp_path / rung.name)
        found = load(tmp_path / rung.name).predict(odd).probabilities
        assert np.isfinite(found).all()
        assert load(tmp_path / rung.name).predict([]).probabilities.shape == (0, 3)


# Published figures ----------------------------------------------------------------------------------------------------


def read(path: Path) -> Pairs:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").strip().split("\n")]
    return [row["text"] for row in rows], [str(row["label"]) for row in rows]


def accuracy(train: Pairs, test: Pairs, folder: Path) -> float:
    task = task_of(train, ([], []))
    fit(NaiveBayesRung(), task, {"ngrams": [1]}, folder)
    found = load(folder).predict(test[0]).labels
    return float(np.mean([task.label_names[best] == label for best, label in zip(found, test[1], strict=True)]))


def test_naive_bayes_reaches_the_published_accuracy_on_mr(rung_data: Path, tmp_path: Path) -> None:
    """Wang and Manning (2012), table 2: 77.9 with words, in ten folds."""
    texts, labels = read(rung_data / "mr" / "all.jsonl")
    folds = StratifiedKFold(10, shuffle=True, random_state=0).split(texts, labels)
    parts = [[([texts[i] for i in part], [labels[i] for i in part]) for part in fold] for fold in folds]
    found = [accuracy(train, test, tmp_path / "nb") for train, test in parts]
    assert 100 * np.mean(found) == pytest.approx(77.9, abs=0.8)


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [("trec/train.jsonl", "trec/test.jsonl", 74.6), ("sst/sst2.train.jsonl", "sst/sst2.test.jsonl", 82.0)],
)
def test_naive_bayes_reaches_what_was_measured_elsewhere(
    rung_data: Path, tmp_path: Path, train: str, test: str, expected: float
) -> None:
    found = accuracy(read(rung_data / train), read(rung_data / test), tmp_path / "nb")
    assert 100 * found == pytest.approx(expected, abs=1.0)
