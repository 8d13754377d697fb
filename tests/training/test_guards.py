"""The guard: what it refuses, what it lets pass, when it gives up; its threshold against scipy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rung.training.guards import Guard, GuardSettings, Verdict


def calm_guard(seed: int = 0, **settings: float) -> Guard:
    """A guard that has seen 128 ordinary steps: losses around 3, norms around 1."""
    guard = Guard(GuardSettings(**settings))  # type: ignore[arg-type]
    random = np.random.default_rng(seed)
    for loss, norm in zip(random.normal(3.0, 0.1, 128), random.normal(1.0, 0.2, 128), strict=True):
        assert guard.judge(loss, norm, 100) is Verdict.FINE
    return guard


@given(st.integers(0, 1000), st.floats(5.0, 30.0))
def test_the_threshold_is_the_robust_deviation_of_scipy(seed: int, threshold: float) -> None:
    losses = calm_guard(seed, spike_threshold=threshold).losses
    deviation = stats.median_abs_deviation(losses, scale="normal")
    limit = float(np.median(losses) + threshold * max(deviation, 0.02 * np.median(losses)))
    assert calm_guard(seed, spike_threshold=threshold).judge(limit * 1.0001, 1.0, 100) is Verdict.SPIKE
    assert calm_guard(seed, spike_threshold=threshold).judge(limit * 0.9999, 1.0, 100) is Verdict.FINE


def test_a_gradient_spike_is_seen_when_the_loss_is_ordinary() -> None:
    assert calm_guard().judge(3.0, 50.0, 100) is Verdict.SPIKE


def test_nothing_is_a_spike_before_the_window_is_full_or_when_switched_off() -> None:
    young = Guard(GuardSettings())
    assert [young.judge(3.0, 1.0, 10) for _ in range(127)] == [Verdict.FINE] * 127
    assert young.judge(300.0, 1.0, 10) is Verdict.FINE
    assert calm_guard(spike_threshold=None).judge(300.0, 1.0, 10) is Verdict.FINE  # type: ignore[arg-type]


def test_a_lasting_change_is_skipped_five_times_and_then_accepted() -> None:
    guard = calm_guard()
    verdicts = [guard.judge(6.0, 1.0, 100) for _ in range(40)]
    assert verdicts == [Verdict.SPIKE] * 5 + [Verdict.FINE] * 35
    assert guard.skipped == {"spike": 5}
    assert not guard.must_stop


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (3.0, math.nan), (3.0, math.inf)])
def test_five_failures_in_a_row_end_training_four_do_not(loss: float, norm: float) -> None:
    guard = Guard(GuardSettings())
    for _ in range(4):
        assert guard.judge(loss, norm, 100) is Verdict.NOT_FINITE
    assert not guard.must_stop
    assert guard.judge(3.0, 1.0, 100) is Verdict.FINE
    for _ in range(5):
        guard.judge(loss, norm, 100)
    assert guard.must_stop
    assert guard.skipped == {"not finite": 9}


def test_a_batch_without_targets_is_named_as_such() -> None:
    assert Guard(GuardSettings()).judge(math.nan, math.nan, 0) is Verdict.NO_TARGETS


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)) | st.just((math.nan, 1.0)), max_size=60))
def test_a_stored_guard_judges_on_as_if_never_stored(steps: list[tuple[float, float]]) -> None:
    guard = Guard(GuardSettings(window=8, spike_threshold=3.0))
    for cut, (loss, norm) in enumerate(steps):
        if cut == len(steps) // 2:
            twin = Guard.from_json(json.loads(json.dumps(guard.to_json())))
        verdict = guard.judge(loss, norm, 10)
        if cut >= len(steps) // 2:
            assert twin.judge(loss, norm, 10) is verdict
    if steps:
        assert twin.to_json() == guard.to_json()
