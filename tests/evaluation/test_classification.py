"""Every metric of a classifier against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.errors import EvaluationError
from rung.evaluation import classification
from rung.evaluation.classification import FAILED, Classified
from rung.records import Record

EXACT = {"abs": 1e-12, "rel": 1e-12}


def simulated(count: int, classes: int, *, failing: float = 0.0, seed: int = 0, rounded: bool = False) -> Classified:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes)) * 2
    logits[np.arange(count), labels] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if rounded:  # equal scores, zeros and ones, as classifiers that count give
        probabilities = np.eye(classes)[probabilities.argmax(axis=1)] * 0.5 + 0.5 / classes
        probabilities[::3] = np.eye(classes)[probabilities[::3].argmax(axis=1)]
    failed = generator.random(count) < failing
    return Classified([f"{i:06}" for i in range(count)], labels, probabilities, failed if failing else None)


@st.composite
def cases(draw: st.DrawFn) -> Classified:
    """Few items of up to five classes, so that classes without items, or never predicted, are common."""
    count, classes = draw(st.integers(1, 40)), draw(st.integers(2, 5))
    used = draw(st.integers(1, classes))
    labels = draw(st.lists(st.integers(0, used - 1), min_size=count, max_size=count))
    weights = draw(
        st.lists(st.lists(st.integers(0, 4), min_size=classes, max_size=classes), min_size=count, max_size=count)
    )
    raw = np.array(weights, dtype=np.float64)
    raw[raw.sum(axis=1) == 0] = 1
    failed = draw(st.none() | st.lists(st.booleans(), min_size=count, max_size=count))
    ids = [f"{i:03}" for i in range(count)]
    failures = None if failed is None else np.array(failed)
    return Classified(ids, np.array(labels), raw / raw.sum(axis=1, keepdims=True), failures)


def by_name(case: Classified) -> dict[str, Record]:
    return {record.name: record for record in classification.records(case)}


@settings(max_examples=40)
@given(cases())
def test_labels_equal_sklearn(case: Classified) -> None:
    found = by_name(case)
    seen = sorted({*case.labels.tolist(), *case.predicted.tolist()} - {FAILED})
    expected_f1 = sk.f1_score(case.labels, case.predicted, labels=seen, average="macro", zero_division=0)
    assert found["accuracy"].value == pytest.approx(sk.accuracy_score(case.labels, case.predicted), **EXACT)
    assert found["macro_f1"].value == pytest.approx(expected_f1, **EXACT)
    if len({*case.labels.tolist(), *case.predicted.tolist()}) > 1:  # else scikit-learn warns
        assert found["mcc"].value == pytest.approx(sk.matthews_corrcoef(case.labels, case.predicted), **EXACT)
    own = classification.per_class(case)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        case.labels, case.predicted, labels=range(case.classes), zero_division=np.nan
    )
    assert own.precision == pytest.approx(precision, nan_ok=True, **EXACT)
    assert own.recall == pytest.approx(recall, nan_ok=True, **EXACT)
    assert own.f1 == pytest.approx(f1, nan_ok=True, **EXACT)
    assert own.support.tolist() == support.tolist()
    columns = [*range(case.classes), *([FAILED] if case.failures.any() else [])]
    expected = sk.confusion_matrix(case.labels, case.predicted, labels=columns)
    assert classification.confusion_matrix(case).tolist() == expected.tolist()


@settings(max_examples=40)
@given(cases())
def test_probabilities_equal_sklearn(case: Classified) -> None:
    found, classes = by_name(case), range(case.classes)
    assert found["log_loss"].value == pytest.approx(
        sk.log_loss(y_true=case.labels, y_proba=case.stated, labels=classes), **EXACT
    )
    assert found["brier"].value == pytest.approx(
        sk.brier_score_loss(case.labels, y_proba=case.stated, labels=classes), **EXACT
    )
    present = np.unique(case.labels).tolist()
    if len(present) == 1:
        assert found["auroc"].not_measured == found["auprc"].not_measured == "all items have the same label"
        return
    judged = [1] if case.classes == 2 else present
    roc = [sk.roc_auc_score(case.labels == k, case.stated[:, k]) for k in judged]
    precision = [sk.average_precision_score(case.labels == k, case.stated[:, k]) for k in judged]
    assert found["auroc"].value == pytest.approx(np.mean(roc), **EXACT)
    assert found["auprc"].value == pytest.approx(np.mean(precision), **EXACT)


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("rounded", [False, True])
def test_larger_sets_equal_sklearn(classes: int, rounded: bool) -> None:
    case = simulated(3_000, classes, rounded=rounded)
    found = by_name(case)
    ovr = {} if classes == 2 else {"multi_class": "ovr"}
    scores = case.probabilities[:, 1] if classes == 2 else case.probabilities
    assert found["auroc"].value == pytest.approx(sk.roc_auc_score(case.labels, scores, **ovr), **EXACT)
    truth = case.labels if classes == 2 else np.eye(classes)[case.labels]
    assert found["auprc"].value == pytest.approx(sk.average_precision_score(truth, scores), **EXACT)
    expected = sk.log_loss(y_true=case.labels, y_proba=case.probabilities)
    assert found["log_loss"].value == pytest.approx(expected, **EXACT)


def test_a_failed_item_is_wrong_whatever_its_probabilities_are() -> None:
    case = simulated(400, 3, failing=0.2, seed=4)
    sure = case.probabilities.copy()
    sure[case.failures] = np.eye(3)[case.labels[case.failures]]
    other = Classified(case.ids, case.labels, sure, case.failed)
    assert by_name(other) == by_name(case)
    assert not case.correct.values[case.failures].any()
    assert case.negative_log_likelihood.values[case.failures] == pytest.approx(np.log(3))
    assert classification.confusion_matrix(case).shape == (4, 4)


def test_intervals_cover_the_truth() -> None:
    truth = by_name(simulated(200_000, 3, seed=9))
    covered = dict.fromkeys(("accuracy", "macro_f1", "mcc", "log_loss", "brier", "auroc"), 0)
    for seed in range(20):
        found = by_name(simulated(400, 3, seed=100 + seed))
        for name in covered:
            spread, value = found[name].interval, truth[name].value
            assert spread is not None
            assert value is not None
            covered[name] += spread.low <= value <= spread.high
    assert min(covered.values()) >= 15, covered  # binomial(20, .95) is below 15 three times in 10,000


def test_the_order_of_items_changes_nothing() -> None:
    case = simulated(300, 4, failing=0.1, seed=2)
    order = np.random.default_rng(0).permutation(300)
    assert case.failed is not None
    shuffled = Classified(
        [case.ids[i] for i in order], case.labels[order], case.probabilities[order], case.failed[order]
    )
    assert classification.per_class(shuffled).support.tolist() == classification.per_class(case).support.tolist()
    for one, other in zip(classification.records(shuffled), classification.records(case), strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-12)
        assert (one.interval is None) == (other.interval is None)
        if one.interval and other.interval:
            assert (one.interval.low, one.interval.high) == pytest.approx(
                (other.interval.low, other.interval.high), abs=1e-12
            )


def test_bad_input_is_refused() -> None:
    good = simulated(5, 3)
    with pytest.raises(EvaluationError, match="do not match"):
        Classified(good.ids[:4], good.labels, good.probabilities)
    with pytest.raises(EvaluationError, match="labels must lie"):
        Classified(good.ids, good.labels + 3, good.probabilities)
    with pytest.raises(EvaluationError, match="sum to 1"):
        Classified(good.ids, good.labels, good.probabilities * 1.1)
    with pytest.raises(EvaluationError, match="sum to 1"):
        Classified(good.ids, good.labels, np.full((5, 3), np.nan))
    with pytest.raises(EvaluationError, match="failures"):
        Classified(good.ids, good.labels, good.probabilities, np.zeros(4, dtype=bool))
    with pytest.raises(EvaluationError, match="no verdict"):
        good.summed("log_loss")
