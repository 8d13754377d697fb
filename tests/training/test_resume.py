"""Killed at any moment, also in the middle of writing, a run goes on to the same bits.

The moments are every change to the file system (files opened for writing, renames, deletions) and every micro-batch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_toy import weights

from rung.training.checkpoint import checkpoints, load_checkpoint

Runner = Callable[[Path, str, "int | None"], dict[str, Any]]


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """Runs trainings in processes that can be killed, without importing torch anew for each."""
    source = Path(__file__).resolve().parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(Path(__file__).with_name("killable.py"))]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin
        assert process.stdout

        def run(run_folder: Path, optimizer: str, kill: int | None) -> dict[str, Any]:
            print(
                json.dumps({"run": str(run_folder), "optimizer": optimizer, "kill": kill}),
                file=process.stdin,
                flush=True,
            )
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            return answer

        yield run
        process.stdin.close()


def trace(run_folder: Path) -> list[Any]:
    """The log without times."""
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.get("vital_signs", {}).pop("seconds", None)
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "targets_per_second", "memory")}
        for line in lines
    ]


@pytest.mark.parametrize(
    ("optimizer", "seed", "kills"),
    [("adamw", 1, 10), ("muon", 2, 6), pytest.param("adamw", 3, 100, marks=pytest.mark.slow)],
)
def test_killed_at_any_moment_a_run_ends_in_the_same_bits(
    runner: Runner, tmp_path: Path, optimizer: str, seed: int, kills: int
) -> None:
    straight = runner(tmp_path / "straight", optimizer, None)
    assert straight["ended"] == "finished"
    expected = weights(tmp_path / "straight/checkpoints/step-00000015")
    moments = np.random.default_rng(seed).choice(np.arange(1, straight["moments"]), kills, replace=False)
    for moment in moments.tolist():
        run_folder = tmp_path / f"killed-at-{moment}"
        assert runner(run_folder, optimizer, moment)["ended"] == "killed"
        for folder in checkpoints(run_folder).values():
            load_checkpoint(folder)  # nothing half-written has the name of a checkpoint
        assert runner(run_folder, optimizer, None)["ended"] == "finished"
        assert weights(run_folder / "checkpoints/step-00000015") == expected, f"killed at moment {moment}"
        assert trace(run_folder) == trace(tmp_path / "straight")
        left = sorted(path.name for path in (run_folder / "checkpoints").iterdir())
        assert left == sorted(path.name for path in (tmp_path / "straight/checkpoints").iterdir())


def test_killed_again_and_again_a_run_still_ends_in_the_same_bits(runner: Runner, tmp_path: Path) -> None:
    straight = runner(tmp_path / "straight", "adamw", None)
    ended = "killed"
    for _ in range(40):  # each life is long enough for one checkpoint, and no longer
        ended = runner(tmp_path / "again", "adamw", straight["moments"] // 3)["ended"]
        if ended != "killed":
            break
    assert ended == "finished"
    first, second = (tmp_path / name / "checkpoints/step-00000015" for name in ("straight", "again"))
    assert weights(first) == weights(second)
    assert trace(tmp_path / "again") == trace(tmp_path / "straight")
