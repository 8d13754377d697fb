"""What a text-to-text training has to say in the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.records import Record


@dataclass(frozen=True)
class Example:
    """A test pair and what the network made of its source."""

    source: str
    reference: str
    written: str


@dataclass(frozen=True)
class RewritingSummary:
    """How a training went. After an interruption nothing is measured: `records` and `examples` are empty.

    `weights` says which weights were kept: those of a step, or the mean of several checkpoints. `pretraining` says on
    what raw text, and for how many steps before those on pairs; it is empty where there was none.
    """

    run: Path
    ended: str
    steps: int
    epochs: float
    parameters: int
    seconds: float
    tokens_per_second: float
    weights: str
    records: tuple[Record, ...]
    examples: tuple[Example, ...]
    plan: Mapping[str, Any]
    skipped: Mapping[str, int]
    pretraining: Mapping[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The summary for people."""
        minutes, seconds = divmod(round(self.seconds), 60)
        lines = [
            f"{self.parameters:,} parameters, {self.steps:,} steps, {self.epochs:.1f} times over the pairs at "
            f"{self.tokens_per_second:,.0f} target tokens/s; {minutes}:{seconds:02} in all: {self.ended}."
        ]
        if self.pretraining:
            lines.insert(
                0,
                f"Before the pairs, {self.pretraining['steps']:,} steps of restoring hidden spans of raw text, "
                f"{self.pretraining['epochs']:.1f} times over its {self.pretraining['tokens']:,} tokens.",
            )
        if not self.records:
            return lines
        lines += ["", f"On test pairs that played no part in training ({self.weights}):"]
        lines += [f"  {record}" for record in self.records]
        for example in self.examples:
            lines += ["", f"  {example.source}", f"  -> {example.written}", f"  (wanted: {example.reference})"]
        lines += ["", f'Next: rung predict {self.run} "..."', f"      rung eval {self.run} pairs.csv"]
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "run": str(self.run),
            "ended": self.ended,
            "steps": self.steps,
            "epochs": round(self.epochs, 3),
            "parameters": self.parameters,
            "seconds": round(self.seconds, 2),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "weights": self.weights,
            "metrics": [record.model_dump(mode="json") for record in self.records],
            "examples": [vars(example) for example in self.examples],
            "skipped": dict(self.skipped),
            **({"pretraining": dict(self.pretraining)} if self.pretraining else {}),
            "plan": dict(self.plan),
        }
