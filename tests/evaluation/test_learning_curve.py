"""Learning curves: planted laws, measured curves of TREC and SST-2, and the labels a rung needs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rung.errors import EvaluationError
from rung.evaluation.learning_curve import (
    CurveScores,
    area_under_curve,
    fit_errors,
    fit_power_law,
    labels_needed,
    labels_to_target,
)
from rung.evaluation.summed import SummedScores
from rung.records import ItemScores

SIZES = [50, 100, 200, 500, 1000]
# Accuracy after fitting on SIZES (mean of five samples), the standard deviation over those samples, and on all data.
MEASURED = {
    "TREC linear": ([0.510, 0.596, 0.685, 0.774, 0.810], [0.051, 0.050, 0.028, 0.015, 0.013], 500, 5_452, 0.890),
    "TREC naive Bayes": ([0.474, 0.463, 0.569, 0.590, 0.637], [0.055, 0.060, 0.065, 0.075, 0.045], 500, 5_452, 0.746),
    "SST-2 linear": ([0.551, 0.584, 0.613, 0.666, 0.708], [0.009, 0.018, 0.012, 0.011, 0.011], 1_821, 6_920, 0.810),
    "SST-2 naive Bayes": ([0.558, 0.596, 0.621, 0.681, 0.726], [0.006, 0.021, 0.01, 0.009, 0.009], 1_821, 6_920, 0.820),
}  # fmt: skip


def resampled(errors: NDArray[np.float64], seeds: NDArray[np.float64], items: float, count: int = 2_000):
    generator = np.random.default_rng(0)
    own = generator.normal(size=(count, len(errors))) * seeds / np.sqrt(5)
    return errors + own + generator.normal(size=(count, 1)) * np.sqrt(errors.mean() * (1 - errors.mean()) / items)


def scores(right: NDArray[np.bool_]) -> SummedScores:
    ids = [f"{i:05}" for i in range(len(right))]
    return SummedScores.of_items(ItemScores(ids, right.astype(np.float64), np.ones(len(right))))


def planted(sizes: list[int], *, items: int = 2_000, seeds: int = 5, seed: int = 0) -> CurveScores:
    """Fits whose true error is 0.05 + 2 n^-0.5, on items of differing difficulty."""
    generator = np.random.default_rng(seed)
    difficulty = generator.random(items)
    noise = generator.normal(size=(len(sizes), seeds, items)) * 0.05
    return CurveScores(
        sizes,
        [
            [scores(difficulty + noise[i, j] > 0.05 + 2 * size**-0.5) for j in range(seeds)]
            for i, size in enumerate(sizes)
        ],
    )


@pytest.mark.parametrize("name", MEASURED)
def test_a_fit_up_to_1000_labels_foretells_the_accuracy_on_all(name: str) -> None:
    accuracy, spread, items, largest, on_all = MEASURED[name]
    errors = 1 - np.array(accuracy)
    law = fit_errors(SIZES, errors, resampled(errors, np.array(spread), items))
    low, high = law.band([largest], extrapolation=largest / 1000)
    assert low[0] <= 1 - on_all <= high[0]
    assert high[0] <= law.error([1000])[0] + 0.05  # more labels do not hurt


@pytest.mark.parametrize("truth", [(0.1, 2.0, 0.5), (0.0, 1.2, 0.3), (0.02, 5.0, 0.8)])
def test_a_planted_law_is_found(truth: tuple[float, float, float]) -> None:
    floor, scale, power = truth
    sizes = [50, 100, 200, 500, 1000, 2000, 5000]
    errors = floor + scale * np.array(sizes) ** -power
    law = fit_errors(sizes, errors, resampled(errors, np.full(7, 0.002), 1e9))
    assert (law.floor, law.power) == pytest.approx((floor, power), abs=0.01)
    assert law.error([20_000]) == pytest.approx([floor + scale * 20_000**-power], abs=1e-3)
    target = labels_to_target(law, floor + scale * 8_000**-power)
    assert target.estimate == pytest.approx(8_000, rel=0.05)
    assert target.low is not None
    assert target.low <= 8_000
    assert target.high is None or target.high >= 8_000
    assert labels_to_target(law, floor / 2).estimate is None


def test_the_band_covers_the_truth_as_often_as_it_says() -> None:
    covered, rounds = 0, 12
    for seed in range(rounds):
        law = fit_power_law(planted([100, 200, 500, 1000], items=600, seeds=3, seed=seed))
        low, high = law.band([3_000])
        covered += low[0] <= 0.05 + 2 * 3_000**-0.5 <= high[0]
    assert covered / rounds >= 0.75


def test_too_few_sizes_and_too_far_are_refused() -> None:
    curve = planted([50, 100, 200], items=100)
    with pytest.raises(EvaluationError, match="3 sizes"):
        fit_power_law(curve)
    law = fit_power_law(planted([50, 100, 200, 400], items=100))
    law.error([1_600])
    for ask in (law.error, law.band):
        with pytest.raises(EvaluationError, match="says nothing about 1,601"):
            ask([1_601])


def test_bad_curves_are_refused() -> None:
    one = scores(np.ones(4, dtype=bool))
    for sizes in ([], [100, 50], [50, 50], [0, 5]):
        with pytest.raises(EvaluationError, match="ascend"):
            CurveScores(sizes, [[one]] * len(sizes))
    with pytest.raises(EvaluationError, match="same number"):
        CurveScores([50, 100], [[one, one], [one]])
    with pytest.raises(EvaluationError, match="different items"):
        labels_needed(CurveScores([50], [[one]]), [scores(np.ones(5, dtype=bool))], margin=0.01)


def test_labels_needed_inside_the_measured_sizes() -> None:
    curve = planted([50, 100, 200, 500, 1000, 2000])
    reference = scores(np.arange(2_000) < 1_640)  # .82: error .18 + margin .01 is reached at n = 204
    found = labels_needed(curve, [reference], margin=0.01)
    assert found.estimate == pytest.approx((2 / 0.14) ** 2, rel=0.2)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= (2 / 0.14) ** 2 <= found.high
    assert "no longer inferior" in found.sentence("linear", "gpt")
    everywhere = labels_needed(curve, [scores(np.arange(2_000) < 600)], margin=0.01)
    assert (everywhere.estimate, everywhere.low, everywhere.high) == (50, 50, 50)


def test_labels_needed_beyond_the_measured_sizes() -> None:
    curve = planted([50, 100, 200, 500, 1000])
    found = labels_needed(curve, [scores(np.arange(2_000) < 1_820)], margin=0.01)  # reached at n = 1,600
    assert found.estimate is not None
    assert 1_000 < found.estimate < 3_000
    assert "extrapolated" in found.sentence("linear", "gpt")
    never = labels_needed(curve, [scores(np.arange(2_000) < 1_999)], margin=0.01)
    assert (never.estimate, never.high) == (None, None)
    assert "more than 4,000" in never.sentence("linear", "gpt")
    short = labels_needed(planted([50, 100, 200]), [scores(np.arange(2_000) < 1_820)], margin=0.01)
    assert short.estimate is None  # three sizes are not extrapolated


def test_area_under_the_curve() -> None:
    halves = scores(np.arange(4) < 2), scores(np.arange(4) < 4)
    curve = CurveScores([10, 100, 1000], [[halves[0]], [halves[0]], [halves[1]]])
    assert area_under_curve(curve) == pytest.approx((0.5 + 0.75) / 2)
    with pytest.raises(EvaluationError, match="two sizes"):
        area_under_curve(CurveScores([10], [[halves[0]]]))
