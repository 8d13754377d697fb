"""A number is a record: value, interval and its method, n, unit, how it was measured, on which data.

A metric here is a ratio of sums over items, `sum(values) / sum(weights)`: accuracy (weights 1), bits per byte (bits
over bytes). Keeping the per-item values by item id is what makes paired tests possible; two records over different
items or different data refuse to be compared.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rung.errors import EvaluationError
from rung.runfolder import write_text


class Interval(BaseModel):
    """A confidence interval and the method that gave it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: float
    high: float
    level: float = 0.95
    method: str


class Record(BaseModel):
    """One measured number, or the reason why it was not measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(description="the metric, for example bits_per_byte")
    value: float | None
    unit: str
    n: int = Field(ge=0, description="how many items it was measured on")
    interval: Interval | None = None
    signature: str = Field(default="", description="how it was measured: every setting that could change the value")
    data_sha256: str | None = Field(default=None, description="the data it was measured on")
    not_measured: str | None = Field(default=None, description="why there is no value")

    @model_validator(mode="after")
    def _value_or_reason(self) -> Self:
        if (self.value is None) == (self.not_measured is None):
            raise ValueError("a record has either a value or a reason why it was not measured")
        return self

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: not measured ({self.not_measured})"
        spread = f" [{self.interval.low:.4f}, {self.interval.high:.4f}]" if self.interval else ""
        return f"{self.name}: {self.value:.4f}{spread} {self.unit} (n={self.n:,})"


class ItemScores:
    """Per-item scores of one metric: `ids` (n strings), `values` and `weights` (n,) float64.

    The metric is `values.sum() / weights.sum()`.
    """

    def __init__(self, ids: list[str], values: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        if not len(ids) == len(values) == len(weights):
            raise EvaluationError(f"{len(ids)} ids, {len(values)} values and {len(weights)} weights do not match")
        if len(set(ids)) != len(ids):
            raise EvaluationError("item ids are not unique, so scores could not be paired")
        self.ids = ids
        self.values = np.asarray(values, dtype=np.float64)
        self.weights = np.asarray(weights, dtype=np.float64)

    @property
    def mean(self) -> float:
        """The metric over all items."""
        return float(self.values.sum() / self.weights.sum())

    def among(self, ids: Collection[str]) -> ItemScores:
        """The scores of those items that are in `ids`."""
        kept = np.array([index for index, item in enumerate(self.ids) if item in ids], dtype=np.int64)
        return ItemScores([self.ids[index] for index in kept], self.values[kept], self.weights[kept])

    def save(self, path: Path) -> None:
        """Write one JSON line per item: id, value, weight."""
        rows = zip(self.ids, self.values.tolist(), self.weights.tolist(), strict=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(json.dumps({"id": i, "value": v, "weight": w}) + "\n" for i, v, w in rows))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        values, weights = (np.array([row[key] for row in rows], dtype=np.float64) for key in ("value", "weight"))
        return cls([row["id"] for row in rows], values, weights)


def require_same_items(first: list[str], second: list[str]) -> None:
    """Raise EvaluationError unless both lists name the same items, in whatever order."""
    if difference := len(set(first) ^ set(second)):
        raise EvaluationError(
            f"these scores are over different items ({difference:,} are only in one of them) and cannot be compared",
            hint="evaluate both on the same data",
        )


def paired(first: ItemScores, second: ItemScores) -> tuple[ItemScores, ItemScores]:
    """Bring two sets of scores into the same item order.

    Raises EvaluationError when they are not over exactly the same items with the same weights.
    """
    require_same_items(first.ids, second.ids)
    position = {item: index for index, item in enumerate(second.ids)}
    order = np.array([position[item] for item in first.ids], dtype=np.int64)
    aligned = ItemScores(first.ids, second.values[order], second.weights[order])
    if not np.array_equal(first.weights, aligned.weights):
        raise EvaluationError(
            "these scores weigh the same items differently and cannot be compared",
            hint="evaluate both on the same source text",
        )
    return first, aligned


def require_comparable(first: Record, second: Record) -> None:
    """Raise EvaluationError unless the two records measure the same thing on the same data."""
    for field in ("name", "unit", "data_sha256", "n"):
        one, other = getattr(first, field), getattr(second, field)
        if one != other:
            raise EvaluationError(
                f"records of different {field} cannot be compared: {one} and {other}", where=f"{first.name}"
            )
