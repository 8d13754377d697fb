"""The pigeonhole bootstrap: known widths where one axis alone varies, and changes on what is shared."""

from __future__ import annotations

import numpy as np
import pytest

from rung.evaluation.crossed import crossed_change, crossed_interval
from rung.records import Interval


def width(interval: Interval) -> float:
    return interval.high - interval.low


def test_with_one_prompt_it_is_the_bootstrap_over_items() -> None:
    scores = (np.arange(400) % 5 < 3).reshape(1, 1, 400)
    found = crossed_interval(scores)
    assert width(found) == pytest.approx(2 * 1.96 * np.sqrt(0.6 * 0.4 / 400), rel=0.05)
    assert (found.low + found.high) / 2 == pytest.approx(0.6, abs=0.005)


def test_what_templates_do_widens_it() -> None:
    draw = np.random.default_rng(0)
    right = draw.random((1, 1, 400)) < 0.6
    alike = np.broadcast_to(right, (4, 5, 400))
    apart = np.stack([np.broadcast_to(draw.random(400) < p, (5, 400)) for p in (0.3, 0.5, 0.7, 0.9)])
    assert width(crossed_interval(apart)) > 2 * width(crossed_interval(alike))
    # Four templates of accuracy 0.3 to 0.9: the standard error of their mean is 0.224 / 2 (the bootstrap's, n - 0).
    assert width(crossed_interval(apart)) == pytest.approx(2 * 1.96 * 0.224 / 2, rel=0.15)


def test_a_change_is_seen_against_the_same_items_and_templates() -> None:
    draw = np.random.default_rng(1)
    first = draw.random((3, 1, 300)) < 0.5
    assert crossed_change(first, first).low == crossed_change(first, first).high == 0
    better = np.repeat(first | (draw.random((3, 1, 300)) < 0.1), 2, axis=1)
    change = crossed_change(first, better)
    assert 0 < change.low < better.mean() - first.mean() < change.high
    assert width(change) < width(crossed_interval(better)), "items that are hard for both do not count"
    with pytest.raises(ValueError, match="same templates"):
        crossed_change(first, better[:2])
