"""Energy carries its method: counters where they can be read, declared watts otherwise, and else nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rung.comparison.energy import Energy


def counters(folder: Path, microjoules: int, wrap: int = 1_000_000) -> Path:
    """A power-capping folder with one processor package, as Linux shows it."""
    package = folder / "intel-rapl:0"
    package.mkdir(parents=True, exist_ok=True)
    (package / "energy_uj").write_text(f"{microjoules}\n")
    (package / "max_energy_range_uj").write_text(f"{wrap}\n")
    return folder


def burn(seconds: float) -> None:
    """Use the processor for a while."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_counters_are_read_also_when_they_start_again(tmp_path: Path) -> None:
    energy = Energy.of_this_machine(None, counters(tmp_path, 900_000))
    assert energy.method == "measured-rapl"
    with energy.measuring() as joules:
        counters(tmp_path, 150_000)
    assert joules.value == pytest.approx(0.25)


def test_counters_win_over_declared_watts(tmp_path: Path) -> None:
    assert Energy.of_this_machine(15.0, counters(tmp_path, 0)).watts_per_core is None


def test_nothing_is_invented(tmp_path: Path) -> None:
    energy = Energy.of_this_machine(None, tmp_path)
    with energy.measuring() as joules:
        burn(0.01)
    assert energy.method == "none"
    assert joules.value is None


def test_declared_watts_give_the_ratio_of_processor_times(tmp_path: Path) -> None:
    energy = Energy.of_this_machine(10.0, tmp_path)
    assert energy.method == "estimated-cpu"
    used = []
    for seconds in (0.2, 0.4):
        began = time.process_time()
        with energy.measuring() as joules:
            burn(seconds)
        used.append((joules.value or 0.0, time.process_time() - began))
    (first, first_seconds), (second, second_seconds) = used
    assert second / first == pytest.approx(second_seconds / first_seconds, rel=0.01)
