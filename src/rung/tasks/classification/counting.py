"""The three lowest rungs: the majority label, naive Bayes, and logistic regression over tf-idf.

scikit-learn solves the logistic regression; prediction is our own, from plain arrays, and imports neither it nor torch.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rung.data.labelled import LabelledItems
from rung.data.ngrams import NgramCounter, NgramVocabulary
from rung.errors import PlanError, RunFolderError
from rung.nets.counting import Linear, Majority, NaiveBayes, SparseRows, inverse_document_frequencies, tf_idf
from rung.progress import Progress
from rung.tasks.classification.predictions import Predictions
from rung.tasks.classification.saving import header, label_config, load_arrays, save_arrays
from rung.tasks.task import FitReport, Indices, Plan, UsualRung

Floats = NDArray[np.float64]
_TEXTS_AT_ONCE = 8192

# The solver keeps about 30 vectors as long as the weights (10 pairs in memory, and working space): 512 MiB of float64.
_MOST_WEIGHTS = 1 << 21
_SOLVER_ITERATIONS = 1000
_TIMED_ITERATIONS = 5
_EXPECTED_ITERATIONS = 60
_FEWEST_ITERATIONS = 20


class _Model(Protocol):
    @property
    def num_parameters(self) -> int: ...

    def probabilities(self, rows: SparseRows) -> Floats: ...


class CountingPredictor:
    """A counted model with the n-grams that are its features; without a vocabulary it does not look at the text."""

    def __init__(self, model: _Model, vocabulary: NgramVocabulary | None) -> None:
        self.model, self.vocabulary = model, vocabulary
        self._counter = None if vocabulary is None else NgramCounter(vocabulary)

    @property
    def num_parameters(self) -> int:
        """Stored numbers that a prediction can use."""
        return self.model.num_parameters

    def predict(self, inputs: Sequence[str], *, batch_size: int = 32) -> Predictions:  # noqa: ARG002 - rows are independent
        """Probabilities of `inputs`; the batch size changes nothing."""
        parts = [np.empty((0, len(self.model.probabilities(_rows(None, [""]))[0])))]
        for start in range(0, len(inputs), _TEXTS_AT_ONCE):
            parts.append(self.model.probabilities(_rows(self._counter, inputs[start : start + _TEXTS_AT_ONCE])))
        return Predictions(np.concatenate(parts))


def _rows(counter: NgramCounter | None, texts: Sequence[str]) -> SparseRows:
    if counter is None:
        empty = np.empty(0, np.int64)
        return SparseRows(empty, empty, np.zeros(len(texts), np.int64))
    return SparseRows(*counter(texts))


# Fitting --------------------------------------------------------------------------------------------------------------


class MajorityRung(UsualRung):
    """Always the most frequent label: the floor under every other rung."""

    name = "majority"
    description = "always the most frequent label"
    height = 0
    is_random = False
    learns = False

    def plan(self, task: Any, seconds: float | None, *, seed: int) -> Plan:  # noqa: ARG002
        """Nothing to decide."""
        return {}

    def fit(self, task: Any, plan: Plan, *, items: Indices, seed: int, folder: Path, progress: Progress) -> FitReport:  # noqa: ARG002
        """Count the labels."""
        watch = _Watch()
        train = task.items["train"].take(items)
        model = Majority.fit(train.labels, len(task.label_names))
        save_arrays(
            folder,
            header(self.name, plan, train, seed=seed),
            config=label_config("rung-majority", task.label_names),
            tensors={"class_counts": model.class_counts},
        )
        return watch.report()


class NaiveBayesRung(UsualRung):
    """Multinomial naive Bayes over which words, or words and word pairs, are there."""

    name = "naive-bayes"
    description = "which words are there, counted by label (naive Bayes)"
    height = 1
    is_random = False

    def plan(self, task: Any, seconds: float | None, *, seed: int) -> Plan:  # noqa: ARG002
        """The orders of n-grams to choose from, [1] for words alone; counting is over before a clock could matter."""
        return {"ngrams": [1, 2]}

    def fit(self, task: Any, plan: Plan, *, items: Indices, seed: int, folder: Path, progress: Progress) -> FitReport:
        """Count for each order of n-grams, keep what is best on validation items."""
        watch = _Watch()
        train, valid = task.items["train"].take(items), task.items["valid"]
        choice = _Choice(valid)
        with progress.task("naive Bayes", len(plan["ngrams"]), "fits") as advance:
            for order in plan["ngrams"]:
                vocabulary = NgramVocabulary.learn(train.texts, order)
                rows = _rows(NgramCounter(vocabulary), train.texts)
                model = NaiveBayes.fit(
                    rows, train.labels, num_features=len(vocabulary), num_classes=len(task.label_names)
                )
                choice.offer(model, vocabulary, {"ngrams": order}, among=len(plan["ngrams"]))
                advance(1)
        _save(folder, header(self.name, plan, train, seed=seed), task.label_names, choice, vars(choice.model))
        return watch.report(choice)


class LinearRung(UsualRung):
    """Logistic regression over tf-idf of words and word pairs."""

    name = "linear"
    description = "weighted words and word pairs (logistic regression over TF-IDF)"
    height = 2
    is_random = False

    def plan(self, task: Any, seconds: float | None, *, seed: int) -> Plan:  # noqa: ARG002
        """As many candidates as fit into `seconds`, the usual best first, and the most iterations of the solver.

        Raises PlanError when not even a rough solution for one candidate fits.
        """
        candidates = [
            {"ngrams": 2, "C": 10.0},
            {"ngrams": 2, "C": 1.0},
            {"ngrams": 2, "C": 100.0},
            {"ngrams": 1, "C": 10.0},
        ]
        if seconds is None:
            return {"candidates": candidates, "max_iterations": _SOLVER_ITERATIONS}
        train = task.items["train"]
        began = time.perf_counter()
        features = _Features(train, 2, len(task.label_names))
        preparing = time.perf_counter() - began
        _solve(features, C=10.0, max_iterations=1)  # the first call imports scikit-learn
        began = time.perf_counter()
        _solve(features, C=10.0, max_iterations=_TIMED_ITERATIONS)
        iteration = (time.perf_counter() - began) / _TIMED_ITERATIONS
        affordable = int((seconds - preparing) / iteration)
        if affordable < _FEWEST_ITERATIONS:
            raise PlanError(
                f"the linear rung needs about {preparing + _FEWEST_ITERATIONS * iteration:.1f} s, not {seconds:.1f} s",
                hint="give more --minutes, or leave the rung out",
            )
        count = max(1, min(len(candidates), affordable // _EXPECTED_ITERATIONS))
        return {"candidates": candidates[:count], "max_iterations": min(_SOLVER_ITERATIONS, affordable // count)}

    def fit(self, task: Any, plan: Plan, *, items: Indices, seed: int, folder: Path, progress: Progress) -> FitReport:
        """Solve for every candidate, keep what is best on validation items."""
        watch = _Watch()
        train, valid = task.items["train"].take(items), task.items["valid"]
        choice, features, unfinished = _Choice(valid), {}, []
        with progress.task("logistic regression", len(plan["candidates"]), "fits") as advance:
            for candidate in plan["candidates"]:
                order = candidate["ngrams"]
                if order not in features:
                    features = {order: _Features(train, order, len(task.label_names))}
                model, converged = _solve(features[order], C=candidate["C"], max_iterations=plan["max_iterations"])
                if not converged:
                    unfinished.append(candidate)
                chosen = {**candidate, "min_items": features[order].min_items}
                choice.offer(model, features[order].vocabulary, chosen, among=len(plan["candidates"]))
                advance(1)
        note = ""
        if unfinished:
            tried = ", ".join(f"ngrams {one['ngrams']}, C {one['C']:g}" for one in unfinished)
            note = f"the solver did not converge in {plan['max_iterations']} iterations for: {tried}"
            progress.say(f"linear: {note}")
        _save(folder, header(self.name, plan, train, seed=seed), task.label_names, choice, vars(choice.model))
        return watch.report(choice, note)


class _Features:
    """Training items as tf-idf rows over the n-grams that at least `min_items` items hold.

    `min_items` is 1 unless the solver's working space would then pass 512 MiB: it rises until it does not.
    """

    def __init__(self, train: LabelledItems, order: int, num_classes: int) -> None:
        self.class_counts = np.bincount(train.labels, minlength=num_classes)
        self.labels = train.labels
        scores = int(np.count_nonzero(self.class_counts))
        vocabulary = NgramVocabulary.learn(train.texts, order)
        rows = _rows(NgramCounter(vocabulary), train.texts)
        self.min_items = 1
        found = np.bincount(rows.columns, minlength=len(vocabulary))
        while np.count_nonzero(found >= self.min_items) * (1 if scores == 2 else scores) > _MOST_WEIGHTS:
            self.min_items += 1
        if self.min_items > 1:
            vocabulary = vocabulary.take(found >= self.min_items)
            rows = _rows(NgramCounter(vocabulary), train.texts)
        self.vocabulary = vocabulary
        self.idf = inverse_document_frequencies(rows, len(vocabulary))
        self.rows = tf_idf(rows, self.idf)


def _solve(features: _Features, *, C: float, max_iterations: int) -> tuple[Linear, bool]:  # noqa: N803 - the field's name
    """Logistic regression by L-BFGS, and whether it converged."""
    from scipy.sparse import csr_array
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    counts, size = features.class_counts, len(features.vocabulary)
    if np.count_nonzero(counts) == 1:  # nothing to tell apart
        return Linear(features.idf, np.zeros((size, 1)), np.zeros(1), counts), True
    rows = features.rows
    starts = np.concatenate([[0], np.cumsum(rows.lengths)])
    matrix = csr_array((rows.values, rows.columns, starts), shape=(len(rows.lengths), max(size, 1)))
    solver = LogisticRegression(C=C, max_iter=max_iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by the number of iterations, below
        solver.fit(matrix, features.labels)
    converged = int(solver.n_iter_[0]) < max_iterations
    return Linear(features.idf, solver.coef_.T.copy()[:size], solver.intercept_.copy(), counts), converged


class _Choice:
    """Keeps the candidate with the best accuracy on validation items, then the lowest log-loss, then the first."""

    def __init__(self, valid: LabelledItems) -> None:
        self._valid = valid
        self._best: tuple[float, float] | None = None
        self.model: NaiveBayes | Linear
        self.vocabulary: NgramVocabulary
        self.chosen: dict[str, Any] = {}

    def offer(
        self, model: NaiveBayes | Linear, vocabulary: NgramVocabulary, chosen: dict[str, Any], *, among: int
    ) -> None:
        """Judge one of `among` candidates; a single one needs no judgement."""
        quality = self._quality(CountingPredictor(model, vocabulary)) if among > 1 and len(self._valid) else (0.0, 0.0)
        if self._best is None or quality > self._best:
            self._best, self.model, self.vocabulary, self.chosen = quality, model, vocabulary, chosen

    def _quality(self, predictor: CountingPredictor) -> tuple[float, float]:
        predictions = predictor.predict(self._valid.texts)
        right = predictions.probabilities[np.arange(len(self._valid)), self._valid.labels]
        accuracy = float((predictions.labels == self._valid.labels).mean())
        return accuracy, float(np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean())


class _Watch:
    """Wall and processor time of one fit."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def report(self, choice: _Choice | None = None, note: str = "") -> FitReport:
        return FitReport(
            seconds=time.perf_counter() - self._wall,
            cpu_seconds=time.process_time() - self._cpu,
            finished=True,
            note=note,
            chosen={} if choice is None else choice.chosen,
        )


# Folders --------------------------------------------------------------------------------------------------------------


def _save(
    folder: Path, head: dict[str, Any], label_names: Sequence[str], choice: _Choice, arrays: dict[str, NDArray[Any]]
) -> None:
    vocabulary = choice.vocabulary
    keys = {f"ngrams.{order}": known for order, known in enumerate(vocabulary.keys, start=2)}
    save_arrays(
        folder,
        {**head, "chosen": choice.chosen},
        config={**label_config(f"rung-{head['rung']}", label_names), "ngrams": 1 + len(keys)},
        tensors={**arrays, **keys},
        vocabulary=vocabulary.words,
    )


_MODELS: dict[str, type[Majority | NaiveBayes | Linear]] = {
    "rung-majority": Majority,
    "rung-naive-bayes": NaiveBayes,
    "rung-linear": Linear,
}


def load(folder: Path) -> CountingPredictor:
    """The counting rung in `folder`. Raises RunFolderError when it holds none, or lacks a part."""
    config, tensors, words = load_arrays(folder)
    model_type = config.get("model_type")
    if model_type not in _MODELS:
        raise RunFolderError(f"a model of type '{model_type}' is no counting rung", where=str(folder))
    model_class = _MODELS[model_type]
    keys = tuple(tensors.pop(f"ngrams.{order}") for order in range(2, config.get("ngrams", 1) + 1))
    vocabulary = None if model_class is Majority else NgramVocabulary(tuple(words), keys)
    return CountingPredictor(model_class(**tensors), vocabulary)
