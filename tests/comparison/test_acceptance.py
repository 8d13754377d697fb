"""What the verdict promises, by simulation and on TREC (acceptance checks C1 to C5).

Bounds allow for the noise of the simulations themselves and say by how much.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, kstest

from rung.comparison.command import compare
from rung.comparison.result import MEASURED, MEASURED_METRICS
from rung.comparison.verdict import Judgement, RungScores, judge
from rung.errors import EvaluationError
from rung.evaluation.learning_curve import CurveScores, labels_needed
from rung.evaluation.paired_tests import mcnemar
from rung.evaluation.power import items_needed
from rung.evaluation.summed import SummedScores
from rung.records import ItemScores

MARGIN = 0.01


def scored(right: NDArray[np.bool_], ids: list[str] | None = None) -> ItemScores:
    names = ids or [f"{i:05}" for i in range(len(right))]
    return ItemScores(names, right.astype(np.float64), np.ones(len(right)))


def two_systems(
    items: int, generator: np.random.Generator, *, ahead: float, discordance: float
) -> tuple[ItemScores, ItemScores]:
    """Right or wrong on each item for a small rung and a large one that is `ahead` by so much in true accuracy."""
    shares = [(discordance - ahead) / 2, (discordance + ahead) / 2, 0.75, 0.25 - discordance]
    kind = generator.choice(4, size=items, p=shares)  # only small, only large, both, neither
    return scored((kind == 0) | (kind == 2)), scored((kind == 1) | (kind == 2))


def judged(small: list[ItemScores], large: list[ItemScores]) -> Judgement:
    return judge(
        {"small": RungScores("small", small, [0.8] * len(small))},
        RungScores("large", large, [0.8] * len(large), is_pretrained_language_model=True),
        margin=MARGIN,
    )


def test_c1_equal_systems_are_not_called_different() -> None:
    """200 pairs of equal true accuracy: at most 5 % false superiority, and p-values spread evenly.

    With a true rate of 5 %, 200 rounds give more than 16 (the 97.5 % quantile) only by bad luck, hence that bound; the
    exact test is conservative, so there are fewer. Evenness is that of mid-p: exact p-values of a discrete test pile up
    near 1 by construction and are never uniform.
    """
    generator, p, found = np.random.default_rng(1), [], []
    for _ in range(200):
        small, large = two_systems(2_000, generator, ahead=0.0, discordance=0.1)
        found.append(judged([small], [large]).pairs[0])
        p.append(mcnemar(small, large).mid_p)
    most = int(binom.ppf(0.975, 200, 0.05))
    assert sum(pair.superior for pair in found) <= most / 2  # one side of a two-sided test
    assert sum(pair.superior or (pair.holm_p or 1) < 0.05 for pair in found) <= most
    assert sum(pair.reference_superior for pair in found) == 0
    assert kstest(p, "uniform").pvalue > 0.01


def test_c1_holds_over_training_seeds() -> None:
    """Fits scatter by 1 point around equal true accuracies: three fits each are not taken for a difference."""
    generator, wrong = np.random.default_rng(2), 0
    for _ in range(100):
        easy = generator.random(1_000)
        fits = [[scored(easy < level) for level in generator.normal(0.8, 0.01, 3)] for _ in range(2)]
        pair = judged(*fits).pairs[0]
        wrong += pair.superior or pair.reference_superior
    assert wrong <= int(binom.ppf(0.975, 100, 0.05))


def test_c2_a_planted_difference_is_found_with_the_power_stated() -> None:
    """3 points at a margin of 1: 2,000 items find it in about 81 % of 200 rounds (standard error 2.8)."""
    generator = np.random.default_rng(3)
    yes = [
        judged(*([one] for one in two_systems(2_000, generator, ahead=0.03, discordance=0.1))).verdict.answer == "yes"
        for _ in range(200)
    ]
    assert np.mean(yes) == pytest.approx(0.81, abs=0.07)
    assert items_needed(0.03 - MARGIN, 0.1) == 1_960  # the plan that 2,000 items come from


def test_c2_too_few_items_are_said_to_be_too_few() -> None:
    """300 items leave it undecided in about 81 % of rounds, with the number that would decide within 15 %."""
    generator = np.random.default_rng(4)
    found = [
        judged(*([one] for one in two_systems(300, generator, ahead=0.03, discordance=0.1))).verdict for _ in range(200)
    ]
    undecided = [verdict for verdict in found if verdict.answer == "not decided"]
    assert len(undecided) / len(found) == pytest.approx(0.81, abs=0.08)
    more = [verdict.items_needed for verdict in undecided if verdict.items_needed is not None]
    assert len(more) == len(undecided)
    assert np.median(more) == pytest.approx(items_needed(MARGIN, 0.1) - 300, rel=0.15)


def test_c3_labels_needed_on_trec(rung_data: Path) -> None:
    """Against a stand-in for an LLM that is right on 75 % of TREC, the linear rung needs 200 to 1,000 labels."""
    train, test = (_trec(rung_data / "trec" / name) for name in ("train.jsonl", "test.jsonl"))
    sizes, seeds = [100, 200, 500, 1000], 2
    curve = CurveScores(
        sizes, [[SummedScores.of_items(_linear(train, test, size, seed)) for seed in range(seeds)] for size in sizes]
    )
    stand_in = scored(np.random.default_rng(0).permutation(len(test[0])) < 0.75 * len(test[0]))
    found = labels_needed(curve, [SummedScores.of_items(stand_in)], margin=MARGIN)
    assert found.estimate is not None
    assert 200 <= found.estimate <= 1_000
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.estimate < found.high <= 1_000


def test_c4_the_order_of_items_changes_nothing_and_a_dropped_item_raises() -> None:
    generator = np.random.default_rng(5)
    small, large = two_systems(700, generator, ahead=0.02, discordance=0.1)
    again, _ = two_systems(700, generator, ahead=0.02, discordance=0.1)
    order = generator.permutation(700)
    shuffled = ItemScores([small.ids[i] for i in order], small.values[order], small.weights[order])
    assert judged([shuffled, again], [large]) == judged([small, again], [large])
    dropped = ItemScores(large.ids[1:], large.values[1:], large.weights[1:])
    with pytest.raises(EvaluationError, match="different items"):
        judged([small, again], [dropped])


@pytest.mark.slow
def test_c5_the_trec_ladder_is_the_same_again_by_its_plans(rung_data: Path, tmp_path: Path) -> None:
    """All but measured times, memory and energy, and what follows from them; the clock of the first run is not read."""
    wishes: dict[str, Any] = {
        "test": [rung_data / "trec" / "test.jsonl"],
        "target": "label",
        "text": ["text"],
        "rungs": ("naive-bayes", "linear", "feedforward", "cnn", "lstm"),
        "seeds": 2,
        "curves": (),
    }
    files = [rung_data / "trec" / "train.jsonl"]
    compare(files, out=tmp_path / "first", minutes=4, **wishes)
    compare(files, out=tmp_path / "again", plan=tmp_path / "first", **wishes)
    first, again = (_not_measured_anew(tmp_path / name / "report.json") for name in ("first", "again"))
    assert {rung["name"] for rung in first["rungs"] if rung["finished"]} == set(wishes["rungs"])
    assert again == first


def _not_measured_anew(report: Path) -> dict[str, Any]:
    """A report without the fields that it names as measured, and without the minutes, which a plan makes needless."""
    content: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    assert content["measured_fields"] == list(MEASURED)
    for name in ("created", "seconds", "pareto", "not_measured"):
        del content[name]
    del content["settings"]["minutes"]
    for rung in content["rungs"]:
        rung["metrics"] = [record for record in rung["metrics"] if record["name"] not in MEASURED_METRICS]
    return content


def _trec(path: Path) -> tuple[list[str], NDArray[np.str_]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["text"].lower() for row in rows], np.array([row["label"] for row in rows])


def _words_and_pairs(text: str) -> list[str]:
    words = text.split()
    return [*words, *map(" ".join, itertools.pairwise(words))]


def _linear(
    train: tuple[list[str], NDArray[np.str_]], test: tuple[list[str], NDArray[np.str_]], size: int, seed: int
) -> ItemScores:
    """TF-IDF of 1- and 2-grams and logistic regression, fitted on `size` rows; nested for one seed."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    drawn = np.random.default_rng(seed).permutation(len(train[0]))[:size]
    features = TfidfVectorizer(analyzer=_words_and_pairs, sublinear_tf=True)
    model = LogisticRegression(C=10, max_iter=1_000)
    model.fit(features.fit_transform([train[0][i] for i in drawn]), train[1][drawn])
    return scored(model.predict(features.transform(test[0])) == test[1])
