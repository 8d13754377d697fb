"""The rule of the verdict, case by case, its sentences, and the Pareto set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rung.comparison.verdict import Judgement, RungScores, about, judge, pareto
from rung.errors import EvaluationError
from rung.evaluation.classification import Classified
from rung.evaluation.learning_curve import LabelsNeeded
from rung.records import ItemScores

MARGIN = 0.01


def scored(right: NDArray[np.bool_]) -> ItemScores:
    return ItemScores([f"{i:06}" for i in range(len(right))], right.astype(np.float64), np.ones(len(right)))


def pattern(items: int, *, only_small: int, only_large: int, both: int) -> tuple[ItemScores, ItemScores]:
    """Scores of a small and a large rung with these numbers of items that only one, or both, got right."""
    place = np.arange(items)
    small = place < both + only_small
    large = (place < both) | ((place >= both + only_small) & (place < both + only_small + only_large))
    return scored(small), scored(large)


def verdict(
    small: ItemScores, large: ItemScores, *, pretrained: bool = True, reached: LabelsNeeded | None = None
) -> Judgement:
    return judge(
        {"linear": RungScores("linear", [small], [0.9])},
        RungScores("gpt", [large], [0.9], is_pretrained_language_model=pretrained),
        margin=MARGIN,
        labels_needed={"linear": reached} if reached else None,
    )


def test_no() -> None:
    found = verdict(*pattern(10_000, only_small=100, only_large=110, both=8_900))
    assert found.verdict.answer == "no"
    assert found.verdict.sentence == (
        "No, linear is enough: linear is 0.1 points behind gpt (95 % interval −0.4 to +0.2), "
        "not worse by more than the margin of 1 point."
    )
    pair = found.pairs[0]
    assert (pair.non_inferior, pair.superior, pair.reference_superior) == (True, False, False)
    assert pair.discordant == (100, 110)
    assert pair.mcnemar_p == pytest.approx(0.535, abs=0.001)
    assert pair.holm_p == pair.mcnemar_p


def test_yes() -> None:
    found = verdict(*pattern(2_000, only_small=30, only_large=150, both=1_700))
    assert found.verdict.answer == "yes"
    assert found.verdict.sentence.startswith("Yes, gpt is needed: linear is 6.0 points behind gpt (95 % interval −7.")
    assert found.pairs[0].reference_superior
    assert found.verdict.items_needed is None


def test_more_labels() -> None:
    scores = pattern(2_000, only_small=30, only_large=150, both=1_700)
    reached = LabelsNeeded(estimate=8_123, low=6_000, high=None, largest_measured=4_000)
    found = verdict(*scores, reached=reached)
    assert (found.verdict.answer, found.verdict.labels_needed) == ("more labels", 8_123)
    assert "about 8,200 labels would bring linear within 1 point of gpt" in found.verdict.sentence
    assert any("6,000 to more than 16,000" in reason for reason in found.verdict.reasons)
    unreached = LabelsNeeded(estimate=None, low=None, high=None, largest_measured=4_000)
    assert verdict(*scores, reached=unreached).verdict.answer == "yes"


def test_not_decided() -> None:
    found = verdict(*pattern(300, only_small=15, only_large=15, both=250))
    assert (found.verdict.answer, found.verdict.items_needed) == ("not decided", 7_547)
    assert found.verdict.sentence == (
        "Not decided: linear and gpt score the same (95 % interval −3.7 to +3.7), neither clearly within nor "
        "beyond the margin of 1 point; about 7,600 more test items would decide."
    )


def test_without_a_pretrained_model_it_says_so() -> None:
    found = verdict(*pattern(10_000, only_small=100, only_large=110, both=8_900), pretrained=False).verdict
    assert found.sentence.startswith("No, among the rungs trained here, linear is enough")
    assert found.sentence.endswith("No pretrained language model took part, so this says nothing about one.")
    assert not found.about_pretrained


def test_the_small_rung_is_chosen_on_validation_and_judged_on_test() -> None:
    good, large = pattern(10_000, only_small=100, only_large=110, both=8_900)
    poor, _ = pattern(10_000, only_small=0, only_large=0, both=7_000)
    small = {"lucky": RungScores("lucky", [good], [0.80]), "steady": RungScores("steady", [poor], [0.90])}
    found = judge(small, RungScores("gpt", [large], [0.9], is_pretrained_language_model=True), margin=MARGIN)
    assert found.verdict.chosen == "steady"
    assert found.verdict.answer == "not decided"  # neither within the margin, nor is gpt better than every rung
    assert "Also within the margin: lucky." in found.verdict.reasons


def test_another_pretrained_model_is_compared_but_is_not_the_small_rung() -> None:
    good, large = pattern(10_000, only_small=100, only_large=110, both=8_900)
    poor, _ = pattern(10_000, only_small=0, only_large=0, both=7_000)
    small = {
        "llama": RungScores("llama", [good], [0.95], is_pretrained_language_model=True),
        "linear": RungScores("linear", [poor], [0.70]),
    }
    reference = RungScores("gpt", [large], [0.9], is_pretrained_language_model=True)
    found = judge(small, reference, margin=MARGIN)
    assert (found.verdict.answer, found.verdict.chosen) == ("yes", "linear")
    assert [pair.rung for pair in found.pairs if pair.non_inferior] == ["llama"]
    only = judge({"llama": small["llama"]}, reference, margin=MARGIN).verdict
    assert (only.answer, only.chosen) == ("no", "llama")


def test_seeds_widen_the_interval_and_the_test_is_on_the_fit_chosen_on_validation() -> None:
    small, large = pattern(4_000, only_small=40, only_large=42, both=3_600)
    worse, _ = pattern(4_000, only_small=40, only_large=42, both=3_400)
    one = judge({"cnn": RungScores("cnn", [small], [0.9])}, RungScores("gpt", [large], [0.9]), margin=MARGIN)
    three = judge(
        {"cnn": RungScores("cnn", [worse, small, worse], [0.8, 0.9, 0.8])},
        RungScores("gpt", [large], [0.9]),
        margin=MARGIN,
    )
    assert three.pairs[0].discordant == one.pairs[0].discordant == (40, 42)
    assert "fits 1 and 0, the best on validation" in three.pairs[0].difference.signature
    first, second = one.pairs[0].difference.interval, three.pairs[0].difference.interval
    assert first is not None
    assert second is not None
    assert second.high - second.low > 2 * (first.high - first.low)
    assert "3 x 1 seeds" in second.method


def test_superior_only_after_holm() -> None:
    better, large = pattern(2_000, only_small=60, only_large=36, both=1_700)
    same = large

    def with_rungs(count: int) -> Judgement:
        others = {f"same-{i}": RungScores(f"same-{i}", [same], [0.5]) for i in range(count)}
        small = {"linear": RungScores("linear", [better], [0.9]), **others}
        return judge(small, RungScores("gpt", [large], [0.9]), margin=MARGIN)

    alone, among = with_rungs(0).pairs[0], with_rungs(4).pairs[0]
    assert alone.mcnemar_p == among.mcnemar_p
    assert alone.mcnemar_p is not None
    assert 0.01 < alone.mcnemar_p < 0.05
    assert alone.superior
    assert among.holm_p == pytest.approx(5 * alone.mcnemar_p)
    assert not among.superior


def test_macro_f1_can_decide() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 3_000)
    scores = []
    for skill in (0.9, 0.7):
        predicted = np.where(generator.random(3_000) < skill, labels, generator.integers(0, 3, 3_000))
        scores.append(Classified([f"{i:05}" for i in range(3_000)], labels, np.eye(3)[predicted]).summed("macro_f1"))
    found = judge(
        {"linear": RungScores("linear", [scores[1]], [0.7])},
        RungScores("gpt", [scores[0]], [0.9], is_pretrained_language_model=True),
        margin=MARGIN,
        metric="macro_f1",
    )
    assert found.verdict.answer == "yes"
    assert found.pairs[0].mcnemar_p is None
    assert found.pairs[0].holm_p == pytest.approx(1 / 10_001)
    assert found.pairs[0].difference.name == "difference in macro_f1"


def test_bad_input_is_refused() -> None:
    small, large = pattern(100, only_small=2, only_large=2, both=80)
    rungs = {"linear": RungScores("linear", [small], [0.9])}
    reference = RungScores("gpt", [large], [0.9])
    for margin in (0, 1, -0.01):
        with pytest.raises(EvaluationError, match="margin"):
            judge(rungs, reference, margin=margin)
    with pytest.raises(EvaluationError, match="no rung to compare"):
        judge({}, reference, margin=MARGIN)
    for test, validation in ([], []), ([small], [0.9, 0.8]):
        with pytest.raises(EvaluationError, match="do not match"):
            RungScores("linear", test, validation)


@pytest.mark.parametrize(
    ("count", "words"), [(7, "7"), (99, "99"), (101, "110"), (7_547, "7,600"), (7_600, "7,600"), (99_999, "100,000")]
)
def test_about(count: int, words: str) -> None:
    assert about(count) == words


def test_pareto_by_hand() -> None:
    points = {"nb": (0.80, 1.0), "linear": (0.85, 1.0), "cnn": (0.85, 5.0), "gpt": (0.90, 50.0), "twin": (0.90, 50.0)}
    assert pareto(points) == ["gpt", "twin", "linear"]
    assert pareto(points, maximise=(False, False)) == ["nb"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_pareto_keeps_whoever_nobody_beats(points: Sequence[tuple[int, int]]) -> None:
    named = {str(number): (float(a), float(b)) for number, (a, b) in enumerate(points)}
    kept = pareto(named)
    assert kept
    for name, (quality, cost) in named.items():
        better = [q >= quality and c <= cost and (q, c) != (quality, cost) for q, c in named.values()]
        assert (name in kept) == (not any(better))
