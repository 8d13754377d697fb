"""What tests of rewriting share."""

from __future__ import annotations

import itertools
import time

import pytest


@pytest.fixture
def ticking_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every reading of a clock be a hundredth of a second after the one before: time passes with what is done.

    So a plan by minutes is the same one on any machine, and a deadline comes after as many steps.
    """
    readings = itertools.count(1000)

    def read() -> float:
        return next(readings) / 100

    for name in ("monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, read)
