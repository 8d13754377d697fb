"""What a classification rung's `details` may hold, as the report reads it. All of it may be missing."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ClassScores(_Read):
    """Precision, recall and F1 of one class; `support` counts its test items."""

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


class ReliabilityBin(_Read):
    """Items whose confidence lies in low..high: mean confidence and accuracy (None for an empty bin)."""

    low: float
    high: float
    confidence: float | None
    accuracy: float | None
    count: int


class CoveragePoint(_Read):
    """Error among the `coverage` share of items that the rung is surest of."""

    coverage: float
    risk: float


class GroupScore(_Read):
    """Accuracy in one group; `suppressed` where the group is too small to be shown."""

    group: str
    n: int
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    suppressed: bool = False


class Repeat(_Read):
    """How alike two predictions of the same items are."""

    exact_rate: float | None = None
    flip_rate: float | None = None
    max_difference: float | None = None


class Prompting(_Read):
    """What only a prompted model has."""

    data_leave_machine: bool | None = None
    cost_per_1000: float | None = None
    currency: str | None = None
    parse_failures: float | None = None
    variation: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    answer_variation: dict[str, Any] | None = None
    templates: list[dict[str, Any]] = []


class Leaked(_Read):
    """Test items that training has seen: scored apart, in no other figure."""

    n: int
    accuracy: float


class ClassificationDetails(_Read):
    """`RungResult.details` of a classification rung. `confusion[i][j]`: items of label i that were called j."""

    labels: list[str] | None = None
    confusion: list[list[int]] | None = None
    per_class: list[ClassScores] | None = None
    reliability: list[ReliabilityBin] | None = None
    risk_coverage: list[CoveragePoint] | None = None
    groups: list[GroupScore] | None = None
    leaked: Leaked | None = None
    determinism: dict[str, Repeat | None] | None = None
    prompting: Prompting | None = None
