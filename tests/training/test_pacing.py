"""Runs with a deadline end near it on machines that change their speed; runs without one never look at a clock."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_toy import Watching, toy_objective, toy_run, toy_settings, weights

from rung.training.checkpoint import load_checkpoint
from rung.training.pacing import Pace
from rung.training.schedule import Schedule


class Clock:
    """A clock that only moves when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def simulate(
    clock: Clock, schedule: Schedule, budget: float, slowness: list[tuple[float, float]], validation: float
) -> tuple[float, Schedule]:
    """Run `schedule` on a pretended machine; (time at the end as a share of the budget, the schedule at the end).

    `slowness` lists (share of the budget, factor): from then on a step takes `factor` seconds.
    """
    began, step = clock.now, 0
    pace = Pace(began + budget)
    while step < schedule.steps:
        over = pace.is_over()
        passed = [factor for since, factor in slowness if clock.now - began >= since * budget]
        clock.now += passed[-1]
        pace.step_took(passed[-1])
        step += 1
        if over:
            schedule = schedule.revised(step, step)
        elif step < schedule.steps and pace.is_due(schedule, step):
            steps = pace.new_steps(schedule, step, {"validation": 50, "checkpoint": None})
            schedule = schedule if steps is None else schedule.revised(step, steps)
        if step % 50 == 0:
            clock.now += validation
            pace.upkeep_took("validation", validation)
    return (clock.now - began) / budget, schedule


@given(
    planned=st.integers(200, 1000),
    first=st.floats(0.4, 2.5),
    changes=st.lists(st.tuples(st.floats(0.05, 0.95), st.floats(0.4, 2.5)), max_size=3),
    validation=st.floats(0.0, 10.0),
)
def test_the_deadline_is_met_whatever_the_machine_does(
    planned: int, first: float, changes: list[tuple[float, float]], validation: float
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        schedule = Schedule.warmup_flat_decay(planned, warmup=planned // 50, decay_fraction=0.5, final=0.1)
        ended, last = simulate(Clock(monkeypatch), schedule, planned, [(0.0, first), *sorted(changes)], validation)
    assert 0.92 <= ended <= 1.07
    assert last.steps - last.decay_start >= 0.1 * last.steps or last.steps < 0.55 * planned


def test_a_machine_as_fast_as_planned_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule.warmup_flat_decay(500, warmup=10, decay_fraction=0.5, final=0.1)
    ended, last = simulate(Clock(monkeypatch), schedule, 505.0, [(0.0, 1.0)], 0.5)
    assert last == schedule
    assert ended == pytest.approx(1.0, abs=0.02)


def timed_objective(clock: Clock, speeds: itertools.cycle[float]) -> Any:
    def objective(net: Any, batch: Any) -> Any:
        clock.now += next(speeds)
        return toy_objective(net, batch)

    return objective


def test_a_run_on_a_slow_machine_ends_in_time_and_its_plan_gives_equal_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, watching, heard = Clock(monkeypatch), Watching(), []
    result = toy_run(
        tmp_path / "dial",
        toy_settings(120, checkpoint_every=None),
        objective=timed_objective(clock, itertools.cycle([0.7])),  # two micro-batches a step: 1.4 s instead of 1 s
        deadline=clock.now + 120,
        display=watching,
        on_revision=lambda state: heard.append(state.schedule),
    )
    assert 110 < clock.now - 1000 < 128
    assert result.ended == "finished"
    assert result.step == result.schedule.steps < 100
    assert heard[-1] == result.schedule
    assert result.revisions[-1].new_steps == result.step
    assert load_checkpoint(result.checkpoint).state.revisions == list(result.revisions)
    assert any("steps instead of" in message for message in watching.said)
    again = toy_run(tmp_path / "plan", toy_settings(schedule=result.schedule, checkpoint_every=None))
    assert weights(again.checkpoint) == weights(result.checkpoint)
    assert again.revisions == ()


def test_without_a_deadline_no_clock_decides_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sane = toy_run(tmp_path / "sane", toy_settings(20))
    clock = Clock(monkeypatch)
    wild = itertools.cycle([0.001, 1e6, 40.0, -5e5])
    mad = toy_run(tmp_path / "mad", toy_settings(20), objective=timed_objective(clock, wild))
    assert weights(mad.checkpoint) == weights(sane.checkpoint)
    assert mad.schedule == sane.schedule
