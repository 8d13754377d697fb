"""A finished comparison for the commands on classifiers, and their helpers importable as top-level modules."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from rung.tasks.loading import load_predictor

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tasks" / "prompting"))
from classifier_commands import compare, rows, write


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Costs as if measured, a page without drawings, and minutes that count from the command, not the test process."""
    agreed = {"exact_rate": 1.0, "flip_rate": 0.0, "max_difference": 0.0}

    def probe(folder: Path, inputs: list[str], **_options: object) -> dict[str, Any]:
        predicted = load_predictor(folder).predict(inputs, batch_size=32)
        return {
            "load_seconds": 0.1,
            "latency_1": [1e-4] * 20,
            "latency_32": [1e-3] * 20,
            "items_per_second": 1e4,
            "energy": None,
            "peak_memory": 1 << 20,
            "numbers": predicted.numbers.tolist(),
            "answers": predicted.answers,
            "determinism": {"same_process": agreed, "batch_size": agreed, "companions": agreed, "threads": None},
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rung.comparison.measuring._probe", probe)
        patch.setattr("rung.comparison.report.html_page", lambda comparison: f"<p>{comparison.verdict.sentence}")
        patch.setattr("rung.cli.comparing.command_started", time.monotonic)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "messages.csv", rows())


@pytest.fixture(scope="module")
def finished(
    quick: None,  # noqa: ARG001 - the costs of its rungs are those
    data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Result]:
    """The folder of a finished comparison, and what the command said."""
    out = tmp_path_factory.mktemp("finished") / "two words"
    return out, compare(data, out)


@pytest.fixture(scope="module")
def rung_folder(finished: tuple[Path, Result]) -> Path:
    return finished[0] / "rungs" / "naive-bayes"
