"""What a comparison found: the content of `report.json`, with a version and a JSON schema.

Every number is a record. Fields that carry a measured time, memory or energy are the only ones that may differ between
two runs with one plan and seed; `MEASURED` names them and the schema repeats the list.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rung.records import Record

SCHEMA_VERSION = 1
MEASURED = (
    "created",
    "seconds",
    "rungs[].metrics[train_seconds, train_cpu_seconds, peak_memory, latency_batch1_p50, latency_batch1_p95, "
    "latency_batch32_p50, latency_batch32_p95, load_seconds, items_per_second, energy]",
    "pareto",
    "not_measured",
)
MEASURED_METRICS = (
    "train_seconds",
    "train_cpu_seconds",
    "peak_memory",
    "latency_batch1_p50",
    "latency_batch1_p95",
    "latency_batch32_p50",
    "latency_batch32_p95",
    "load_seconds",
    "items_per_second",
    "energy",
)

Answer = Literal["no", "yes", "more labels", "not decided"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class DataFound(_Part):
    """The data and what the gates found in it. Counts are of rows."""

    files: list[str]
    sha256: str
    target: str
    text_columns: list[str]
    guessed: list[str] = Field(description="sentences that say what was guessed about the columns, and why")
    rows: int
    rejected: dict[str, int] = Field(description="reason -> rows that were left out")
    classes: list[dict[str, Any]] = Field(description="{label, train, valid, test}, most frequent first")
    split: dict[str, Any] = Field(description="{method, sha256, train, valid, test}")
    profile: list[str] = Field(description="sentences on lengths, words and classes")
    gates: list[dict[str, Any]] = Field(description="{name, passed: bool, count, share, sentence, examples: [..]}")
    power: dict[str, Any] = Field(description="{n, margin, detectable_difference, needed_for_margin, sentence}")


class CurvePoint(_Part):
    """Error (1 - primary metric) on the test items after fitting on `items` training items."""

    items: int
    seed: int
    error: float


class CurveFit(_Part):
    """error = floor + scale * items ** -power, with 90 % bands by bootstrap at `at` sizes."""

    floor: float
    scale: float
    power: float
    at: list[float]
    fitted: list[float]
    low: list[float]
    high: list[float]


class LearningCurve(_Part):
    """Quality against number of labels."""

    points: list[CurvePoint]
    fit: CurveFit | None
    labels_needed: int | None = Field(description="labels from which it is not inferior to the best; None: not seen")
    labels_needed_interval: tuple[int, int] | None
    sentence: str


class RungResult(_Part):
    """One rung, measured. `details` is the task's own: classification gives per_class, confusion, reliability ..."""

    name: str
    description: str
    height: int
    folder: str
    is_pretrained_language_model: bool
    finished: bool
    note: str
    chosen: dict[str, Any]
    metrics: list[Record]
    seeds: list[dict[str, Any]] = Field(description="{seed, value} of the primary metric on test, one per fit")
    details: dict[str, Any]
    learning_curve: LearningCurve | None = None

    def metric(self, name: str) -> Record:
        """The record called `name`. Raises KeyError."""
        found = {record.name: record for record in self.metrics}
        return found[name]


class PairResult(_Part):
    """A rung against the reference on the same test items; differences are rung minus reference."""

    rung: str
    reference: str
    difference: Record
    mcnemar_p: float | None
    holm_p: float | None
    discordant: tuple[int, int] = Field(description="items that only the rung, only the reference got right")
    probability_better: float | None = Field(description="P(rung > reference) over seeds and items")
    non_inferior: bool
    superior: bool = Field(description="better than the reference by more than nothing, after Holm")
    reference_superior: bool = Field(description="the reference is better by more than the margin")


class Verdict(_Part):
    """The answer by rule, and the numbers it rests on."""

    answer: Answer
    sentence: str
    reasons: list[str]
    chosen: str | None = Field(description="the best small rung, chosen on validation")
    reference: str
    margin: float
    labels_needed: int | None = None
    items_needed: int | None = None
    about_pretrained: bool = Field(description="False: no pretrained model took part")


class Disagreement(_Part):
    """A test item on which the chosen small rung and the reference differ."""

    id: str
    text: str
    label: str
    small: str
    reference: str


class Comparison(_Part):
    """A finished comparison."""

    schema_version: int = SCHEMA_VERSION
    rung_version: str
    task: str
    command: str
    created: str
    seconds: float
    machine: str
    settings: dict[str, Any] = Field(description="minutes, seed, seeds, metric, margin, reference, rungs")
    data: DataFound
    rungs: list[RungResult]
    pairs: list[PairResult]
    verdict: Verdict
    pareto: dict[str, list[str]] = Field(description="{quality_latency, quality_size, quality_cost} -> names of rungs")
    disagreements: list[Disagreement]
    not_measured: list[str]
    measured_fields: list[str] = Field(default=list(MEASURED))

    def result(self, name: str) -> RungResult:
        """The rung called `name`. Raises KeyError."""
        return {rung.name: rung for rung in self.rungs}[name]


def json_schema() -> dict[str, Any]:
    """The JSON schema of `report.json`."""
    return Comparison.model_json_schema() | {"$id": f"rung/comparison/{SCHEMA_VERSION}"}
