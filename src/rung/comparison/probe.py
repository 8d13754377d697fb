"""Measures one rung in its own process: `python -m rung.comparison.probe FOLDER`, inputs as JSON on standard input.

A fresh process is the only honest place for the time to load, the peak memory and the question whether predictions
change from one process to the next. Nothing else runs in it. Answers with one JSON object on standard output.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from rung.comparison.energy import Energy
from rung.comparison.peak_memory import peak_memory
from rung.errors import RungError

if TYPE_CHECKING:
    from rung.tasks.task import Predicted

WARM_UP = 10
BATCH = 32
_LEAST_SECONDS = 1.0  # of repeated batches, for items per second and energy
_REPEATS = 10
_FEWER_REPEATS = 2  # where once takes longer than that second


@dataclass(frozen=True)
class Answered:
    """Predictions of some items: `numbers` (items, k), and the answer that each comes to."""

    numbers: NDArray[np.float64]
    answers: list[Any]

    @classmethod
    def of(cls, predicted: Predicted) -> Self:
        """What the predictions are compared by."""
        return cls(predicted.numbers, predicted.answers)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """One after the other."""
        return cls(np.concatenate([part.numbers for part in parts]), [a for part in parts for a in part.answers])

    def backwards(self) -> Answered:
        """The same from the last item to the first."""
        return Answered(self.numbers[::-1], self.answers[::-1])


_Predict = Callable[[Sequence[str], int], Answered]


def main() -> None:
    """Read the request, measure, answer. A RungError becomes {"error": ...}."""
    request = json.load(sys.stdin)
    try:
        answer = probe(
            Path(sys.argv[1]), request["inputs"], threads=request["threads"], watts_per_core=request["watts_per_core"]
        )
    except RungError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


def probe(folder: Path, inputs: Sequence[str], *, threads: int, watts_per_core: float | None) -> dict[str, Any]:
    """Load the rung in `folder` and measure it on `inputs`; times in seconds, memory in bytes."""
    _use_threads(threads)
    began = time.perf_counter()
    from rung.tasks.loading import load_predictor

    predictor = load_predictor(folder)

    def predict(texts: Sequence[str], size: int) -> Answered:
        return Answered.of(predictor.predict(texts, batch_size=size))

    predict(inputs[:1], 1)
    load_seconds = time.perf_counter() - began
    began = time.perf_counter()
    reference = predict(inputs, BATCH)
    repeated = _REPEATS if time.perf_counter() - began < _LEAST_SECONDS else _FEWER_REPEATS
    ones, latencies_1 = _timed(predict, [[text] for text in inputs], size=1)
    _, latencies_32 = _timed(predict, _batches(inputs, BATCH), size=BATCH)
    rate, energy = _throughput(predict, inputs, Energy.of_this_machine(watts_per_core))
    repeats = [predict(inputs, BATCH) for _ in range(repeated)]
    return {
        "load_seconds": load_seconds,
        "latency_1": latencies_1,
        "latency_32": latencies_32,
        "items_per_second": rate,
        "energy": energy,
        "peak_memory": peak_memory(),
        "numbers": reference.numbers.tolist(),
        "answers": reference.answers,
        "determinism": {
            "same_process": agreement([reference] * repeated, repeats),
            "batch_size": agreement([reference] * 2, [ones, predict(inputs, 8)]),
            "companions": agreement([reference], [predict(list(reversed(inputs)), BATCH).backwards()]),
            "threads": _other_threads(predict, inputs, reference, threads),
        },
    }


def agreement(first: Sequence[Answered], second: Sequence[Answered]) -> dict[str, float]:
    """How often predictions of the same items are bit-equal, change their answer, and by how much at most."""
    one, other = Answered.joined(first), Answered.joined(second)
    return {
        "exact_rate": float((one.numbers == other.numbers).all(axis=1).mean()),
        "flip_rate": float(np.mean([a != b for a, b in zip(one.answers, other.answers, strict=True)])),
        "max_difference": float(np.abs(one.numbers - other.numbers).max()),
    }


def _batches(inputs: Sequence[str], size: int) -> list[Sequence[str]]:
    """Full batches, at least 20 of them, over and over the inputs."""
    repeated = list(inputs) * (1 + 20 * size // max(len(inputs), 1))
    return [repeated[start : start + size] for start in range(0, 20 * size, size)]


def _timed(predict: _Predict, batches: Sequence[Sequence[str]], *, size: int) -> tuple[Answered, list[float]]:
    """Predictions and seconds of each batch, after a warm-up."""
    for batch in batches[:WARM_UP]:
        predict(batch, size)
    results, seconds = [], []
    for batch in batches:
        began = time.perf_counter()
        results.append(predict(batch, size))
        seconds.append(time.perf_counter() - began)
    return Answered.joined(results), seconds


def _throughput(predict: _Predict, inputs: Sequence[str], energy: Energy) -> tuple[float, dict[str, Any] | None]:
    """Items per second in batches over at least a second, and the energy that took, if it can be known."""
    done, began = 0, time.perf_counter()
    with energy.measuring() as joules:
        while (elapsed := time.perf_counter() - began) < _LEAST_SECONDS:
            predict(inputs, BATCH)
            done += len(inputs)
    used = None if joules.value is None else {"joules_per_1000": 1000 * joules.value / done, "method": energy.method}
    return done / elapsed, used


def _other_threads(
    predict: _Predict, inputs: Sequence[str], reference: Answered, threads: int
) -> dict[str, float] | None:
    """Agreement with another number of threads; None for a rung that does not use torch."""
    if "torch" not in sys.modules:
        return None
    import torch

    torch.set_num_threads(1 if threads > 1 else 2)
    changed = predict(inputs, BATCH)
    torch.set_num_threads(threads)
    return agreement([reference], [changed])


def _use_threads(threads: int) -> None:
    import os

    os.environ["OMP_NUM_THREADS"] = str(threads)


if __name__ == "__main__":
    main()
