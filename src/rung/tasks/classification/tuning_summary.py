"""What is told about a tuned classifier in the end: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.records import Record
from rung.tasks.card_parts import record_row
from rung.tasks.classification.tuning_recipe import ClassifyRecipe
from rung.tasks.run import Run

MAJORITY = "majority_accuracy"
_TOLD = ("accuracy", "macro_f1", MAJORITY)


@dataclass(frozen=True)
class ClassifierTuned:
    """How tuning went. `records` are measured on test items that played no part; empty after an interruption."""

    run: Path
    ended: str
    steps: int
    epochs: float
    parameters: int
    trained: int
    seconds: float
    texts_per_second: float
    records: tuple[Record, ...]
    plan: Mapping[str, Any]
    note: str = ""
    skipped: Mapping[str, int] = field(default_factory=dict)

    def record(self, name: str) -> Record:
        """One of the measurements. KeyError where it was not made."""
        return {one.name: one for one in self.records}[name]

    def lines(self) -> list[str]:
        """What was tuned and how good it is, for people."""
        rate = f", {self.epochs:.1f} times over the texts at {self.texts_per_second:,.0f} texts/s" if self.steps else ""
        trained = f"{self.trained:,} of {self.parameters:,} parameters trained"
        lines = [f"{trained}, {self.steps:,} steps{rate}; {self.seconds:,.0f} s in all: {self.ended}."]
        if self.note:
            lines.append(self.note)
        if not self.records:
            return lines
        by_name = {record.name: record for record in self.records}
        lines += ["", "On test items that played no part in training:"]
        lines += [f"  {by_name[name]}" for name in _TOLD if name in by_name]
        return [*lines, "", f'Next: rung predict {self.run} "some text"', f"      rung eval {self.run} labelled.csv"]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "run": str(self.run),
            "ended": self.ended,
            "steps": self.steps,
            "epochs": round(self.epochs, 3),
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            "seconds": round(self.seconds, 2),
            "texts_per_second": round(self.texts_per_second, 1),
            "metrics": [record.model_dump(mode="json") for record in self.records],
            "note": self.note,
            "skipped": dict(self.skipped),
            "plan": dict(self.plan),
        }


def card(run: Run, recipe: ClassifyRecipe, summary: ClassifierTuned, *, labels: tuple[str, ...]) -> str:
    """The model card of a finished run: `README.md` with Hugging Face metadata."""
    data, parent, training = run.header["data"], run.header["parent"], recipe.training
    method = recipe.tuning
    how = f"{method.kind} tuning" + (f", rank {method.lora.r}" if method.lora else "")
    if method.layer_decay is not None:
        how += f", each layer at {method.layer_decay:g} times the rate of the next"
    steps = (
        f"{summary.steps:,} steps of up to {training.batch_size} texts ({summary.epochs:.1f} readings), learning rate "
        f"{recipe.learning_rate:g}, {training.precision}, seed {recipe.seed}"
        if summary.steps
        else "a head solved for by logistic regression on the frozen body"
    )
    return f"""---
library_name: transformers
pipeline_tag: text-classification
tags: [rung]
---

# {run.folder.name}

{parent["name"]} ({parent["architecture"]}), tuned to tell {len(labels)} classes apart: {", ".join(labels[:20])}{
        ", ..." if len(labels) > 20 else ""
    }.

## Use

```
rung predict {run.folder} "some text"
rung eval {run.folder} labelled.csv
```

## Measured on test items

| metric | value | 95 % interval | items | how |
|---|---|---|---|---|
{chr(10).join(record_row(record) for record in summary.records)}

## Data

{data["train"]:,} items to tune on, {data["valid"]:,} to choose weights by, {data["test"]:,} to measure on (split
{data["split"]}). Test items that leaked into training were left out: {data["leaked"]:,}. SHA-256 of items and split:
`{data["sha256"]}`.

## Training

Base: {parent["name"]}, SHA-256 of its weights `{parent["weights_sha256"]}`, licence: {parent["licence"]}. {
        how.capitalize()
    }:
{steps}. Texts are read up to {training.max_length} tokens. Ended: {summary.ended}. Energy: not measured.

## Limits

These figures hold for texts like those it was tuned on; for others nothing is known until it is measured. What the base
has picked up from its own training text is not examined here. Bias, privacy and safety: not measured.
"""
