"""What a rung costs: size, speed, memory, energy, and whether it says the same thing twice; each a record."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from rung.comparison.probe import BATCH, WARM_UP, Answered, agreement
from rung.errors import EvaluationError
from rung.evaluation.quantiles import quantile_interval
from rung.records import Record
from rung.tasks.loading import load_predictor
from rung.tasks.task import AskedPredictor, FitReport

PROBED_ITEMS = 100
_VARIED_ITEMS, _VARIED_LOCALLY = 10, 2
_ASKED_AGAIN = 10
_NOT_OURS = (
    ("bytes_on_disk", "bytes"),
    ("peak_memory", "bytes"),
    ("load_seconds", "s"),
    ("energy", "J per 1,000 items"),
)


@dataclass(frozen=True)
class Costs:
    """Records of cost, and what the report shows beside them: determinism, and of a model that is asked its answers."""

    records: list[Record]
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values, to keep."""
        records = [record.model_dump(mode="json") for record in self.records]
        return {"records": records, "details": self.details}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls([Record.model_validate(record) for record in stored["records"]], stored["details"])


def measure_costs(
    folder: Path, report: FitReport, inputs: Sequence[str], *, threads: int, watts_per_core: float | None
) -> Costs:
    """Measure the rung in `folder` on up to 100 inputs, in a fresh process and compared with this one.

    A model that is asked is not asked again: its figures are those of the requests that were made for the test items.
    """
    predictor = load_predictor(folder)
    if (asked := predictor.asked) is not None:
        return _costs_of_asking(asked, report, inputs)
    inputs = list(inputs[:PROBED_ITEMS])
    answer = _probe(folder, inputs, threads=threads, watts_per_core=watts_per_core)
    here = Answered.of(predictor.predict(inputs, batch_size=BATCH))
    there = Answered(np.array(answer["numbers"]), answer["answers"])
    determinism = answer["determinism"] | {"fresh_process": agreement([here], [there])}
    setting = f"{threads} threads, tokenisation included, after {WARM_UP} warm-ups"
    records = [
        _seconds("train_seconds", report.seconds, "wall time of one fit on all training items"),
        _seconds("train_cpu_seconds", report.cpu_seconds, "CPU time of one fit on all training items"),
        _count("parameters", predictor.num_parameters, "numbers", "learned numbers that a prediction can use"),
        _count("bytes_on_disk", bytes_on_disk(folder), "bytes", "all files of the folder"),
        _count("peak_memory", answer["peak_memory"], "bytes", "of a fresh process that loads the rung and predicts"),
        _seconds("load_seconds", answer["load_seconds"], "from its folder to the first prediction, fresh process"),
        *_latencies("latency_batch1", answer["latency_1"], setting),
        *_latencies("latency_batch32", answer["latency_32"], setting),
        Record(
            name="items_per_second",
            value=answer["items_per_second"],
            unit="items/s",
            n=len(inputs),
            signature=f"batches of {BATCH}, {setting}",
        ),
        _energy(answer["energy"], len(inputs)),
    ]
    return Costs(records, {"determinism": determinism})


def _costs_of_asking(asked: AskedPredictor, report: FitReport, inputs: Sequence[str]) -> Costs:
    """Figures of a model elsewhere are those of the requests for the test items, which are in the cache by now.

    A model on this machine has no cache: a few texts are asked one by one.
    """
    if asked.is_local:
        inputs, varied, reason = inputs[:_ASKED_AGAIN], _VARIED_LOCALLY, "the model answers within this process"
    else:
        varied, reason = _VARIED_ITEMS, "the model runs elsewhere"
    seconds = _ask_one_by_one(asked, inputs) if asked.is_local else None
    if seconds is None:
        asked.predict(inputs)
    told = asked.details()
    told["answer_variation"] = asked.answer_variation(list(inputs[:varied]))
    records = [
        _seconds("train_seconds", report.seconds, "wall time of choosing the prompt"),
        _seconds("train_cpu_seconds", report.cpu_seconds, "CPU time of choosing the prompt"),
        _count("parameters", asked.num_parameters, "numbers", "learned numbers of the model that is asked"),
        asked.cost_per_1000,
        *(Record(name=name, value=None, unit=unit, n=0, not_measured=reason) for name, unit in _NOT_OURS),
    ]
    if seconds is not None:
        return Costs([*records, *_latencies("latency_batch1", seconds, "in this process")], {"prompting": told})
    for name in ("p50", "p95"):
        value = told["request_seconds"] and told["request_seconds"][name]
        records.append(
            Record(
                name=f"latency_batch1_{name}",
                value=value,
                unit="s",
                n=len(inputs),
                signature="one request, as timed when the test items were asked",
                not_measured=None if value is not None else "no request was timed",
            )
        )
    return Costs(records, {"prompting": told})


def _ask_one_by_one(asked: AskedPredictor, inputs: Sequence[str]) -> list[float]:
    """Seconds of each text after the first, with which what all of them share is read."""
    seconds = []
    for text in [*inputs[:1], *inputs]:
        began = time.perf_counter()
        asked.predict([text])
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def bytes_on_disk(folder: Path) -> int:
    """The size of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _probe(folder: Path, inputs: list[str], *, threads: int, watts_per_core: float | None) -> dict[str, Any]:
    request = {"inputs": inputs, "threads": threads, "watts_per_core": watts_per_core}
    done = subprocess.run(  # noqa: S603  (our own interpreter and module)
        [sys.executable, "-m", "rung.comparison.probe", str(folder)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EvaluationError(f"a rung could not be measured: {done.stderr.strip()[-2000:]}", where=str(folder))
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise EvaluationError(f"a rung could not be measured: {answer['error']}", where=str(folder))
    return answer


def _seconds(name: str, value: float, signature: str) -> Record:
    return Record(name=name, value=value, unit="s", n=1, signature=signature)


def _count(name: str, value: int | None, unit: str, signature: str) -> Record:
    reason = None if value is not None else "nobody outside the provider knows"
    return Record(name=name, value=value, unit=unit, n=1, signature=signature, not_measured=reason)


def _latencies(name: str, seconds: list[float], setting: str) -> list[Record]:
    """Median and 95th percentile of the time of one call, with the distribution-free interval of a quantile."""
    return [
        Record(
            name=f"{name}_p{percent}",
            value=float(np.quantile(seconds, percent / 100)),
            unit="s",
            n=len(seconds),
            interval=quantile_interval(np.array(seconds), percent / 100),
            signature=f"one call, {setting}",
        )
        for percent in (50, 95)
    ]


def _energy(energy: dict[str, Any] | None, items: int) -> Record:
    if energy is None:
        reason = "no energy counter can be read here, and --watts-per-core was not given"
        return Record(name="energy", value=None, unit="J per 1,000 items", n=0, not_measured=reason)
    return Record(
        name="energy",
        value=energy["joules_per_1000"],
        unit="J per 1,000 items",
        n=items,
        signature=f"{energy['method']}, batches of {BATCH}",
    )
