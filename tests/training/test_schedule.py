"""The schedule: its shape against numpy's interpolation, and the promise that a revision never touches the past."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.errors import RecipeError
from rung.training.schedule import Schedule


@given(st.integers(2, 500), st.floats(0.0, 0.3), st.floats(0.0, 0.7), st.floats(0.0, 1.0))
def test_warmup_flat_decay_is_interpolation_between_its_knots(
    steps: int, warmup_share: float, decay_fraction: float, final: float
) -> None:
    warmup = int(steps * warmup_share)
    schedule = Schedule.warmup_flat_decay(steps, warmup=warmup, decay_fraction=decay_fraction, final=final)
    knots = [0.0, warmup, steps - round(steps * decay_fraction), steps]
    values = [0.0, 1.0, 1.0, final if round(steps * decay_fraction) else 1.0]
    if not warmup:
        knots, values = knots[1:], values[1:]
    expected = np.interp(np.arange(1, steps + 1), knots, values)
    assert np.allclose([schedule.multiplier(step) for step in range(steps)], expected, rtol=1e-12, atol=1e-12)


@given(
    st.integers(20, 200),
    st.lists(st.tuples(st.floats(0.05, 0.95), st.floats(0.5, 2.0)), max_size=6),
)
def test_the_final_schedule_reproduces_what_was_walked(steps: int, bends: list[tuple[float, float]]) -> None:
    """Walk with revisions on the way; the last schedule alone, through JSON, gives every multiplier bit for bit."""
    schedule = Schedule.warmup_flat_decay(steps, warmup=3, decay_fraction=0.5, final=0.1)
    walked: list[float] = []
    for progress, stretch in bends:
        until = max(len(walked), int(progress * schedule.steps))
        walked += [schedule.multiplier(step) for step in range(len(walked), until)]
        schedule = schedule.revised(until, max(until + 1, 5, int(schedule.steps * stretch)))
    walked += [schedule.multiplier(step) for step in range(len(walked), schedule.steps)]
    stored = Schedule.from_json(json.loads(json.dumps(schedule.to_json())))
    assert stored == schedule
    assert [stored.multiplier(step) for step in range(stored.steps)] == walked
    assert walked[-1] == pytest.approx(0.1)
    before_decay = walked[stored.warmup : stored.decay_start]
    assert before_decay == [1.0] * len(before_decay)
    falling = walked[stored.decay_start :]
    assert falling == sorted(falling, reverse=True)


def test_a_longer_run_keeps_its_decay_share_and_a_bent_decay_ends_where_it_should() -> None:
    schedule = Schedule.warmup_flat_decay(100, warmup=5, decay_fraction=0.5, final=0.0)
    longer = schedule.revised(50, 200)
    assert (longer.decay_start, longer.multiplier(99), longer.multiplier(149)) == (100, 1.0, 0.5)
    shorter = longer.revised(150, 160)
    assert shorter.multiplier(149) == 0.5
    assert shorter.multiplier(154) == pytest.approx(0.25)
    assert shorter.multiplier(159) == 0.0


def test_too_little_time_left_for_the_decay_share_decays_at_once() -> None:
    schedule = Schedule.warmup_flat_decay(100, warmup=5, decay_fraction=0.5, final=0.1).revised(40, 50)
    assert schedule.decay_start == 40
    assert schedule.multiplier(39) == 1.0
    assert schedule.multiplier(49) == pytest.approx(0.1)


@pytest.mark.parametrize(("steps", "warmup", "fraction"), [(0, 0, 0.5), (10, 10, 0.5), (10, -1, 0.5), (10, 1, 1.5)])
def test_parts_that_do_not_fit_are_refused(steps: int, warmup: int, fraction: float) -> None:
    with pytest.raises(RecipeError):
        Schedule.warmup_flat_decay(steps, warmup=warmup, decay_fraction=fraction, final=0.1)
