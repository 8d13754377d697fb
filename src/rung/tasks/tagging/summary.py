"""What is told about a tuned tagger in the end: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.records import Record
from rung.tasks.card_parts import record_row
from rung.tasks.run import Run
from rung.tasks.tagging.recipe import TagRecipe


@dataclass(frozen=True)
class TaggerTuned:
    """How tuning went. `records` are measured on test sentences that played no part; empty after an interruption."""

    run: Path
    ended: str
    steps: int
    epochs: float
    parameters: int
    trained: int
    seconds: float
    sentences_per_second: float
    records: tuple[Record, ...]
    plan: Mapping[str, Any]
    skipped: Mapping[str, int] = field(default_factory=dict)

    def record(self, name: str) -> Record:
        """One of the measurements. KeyError where it was not made."""
        return {one.name: one for one in self.records}[name]

    def lines(self) -> list[str]:
        """What was tuned and how good it is, for people."""
        lines = [
            f"{self.trained:,} of {self.parameters:,} parameters trained, {self.steps:,} steps, {self.epochs:.1f} "
            f"times over the sentences at {self.sentences_per_second:,.0f} a second; {self.seconds:,.0f} s in all: "
            f"{self.ended}."
        ]
        if not self.records:
            return lines
        lines += ["", "On test sentences that played no part in training:"]
        lines += [f"  {record}" for record in self.records]
        return [*lines, "", f'Next: rung predict {self.run} "some text"', f"      rung eval {self.run} tagged.conll"]

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
            "sentences_per_second": round(self.sentences_per_second, 1),
            "metrics": [record.model_dump(mode="json") for record in self.records],
            "skipped": dict(self.skipped),
            "plan": dict(self.plan),
        }


def card(run: Run, recipe: TagRecipe, summary: TaggerTuned) -> str:
    """The model card of a finished run: `README.md` with Hugging Face metadata."""
    data, parent, training = run.header["data"], run.header["parent"], recipe.training
    return f"""---
library_name: transformers
pipeline_tag: token-classification
tags: [rung]
---

# {run.folder.name}

{parent["name"]} ({parent["architecture"]}), tuned to give each word of a text one of {len(data["tags"])} tags:
{", ".join(data["tags"])}.

## Use

```
rung predict {run.folder} "some text"
rung eval {run.folder} tagged.conll
```

## Measured on test sentences

| metric | value | 95 % interval | sentences | how |
|---|---|---|---|---|
{chr(10).join(record_row(record) for record in summary.records)}

## Data

{data["train"]:,} sentences to tune on, {data["valid"]:,} to choose weights by, {data["test"]:,} to measure on.
{" ".join(f"{remark}." for remark in data["remarks"])} Hashes of the three: `{data["sha256"]}`.

## Training

Base: {parent["name"]}, SHA-256 of its weights `{parent["weights_sha256"]}`, licence: {parent["licence"]}.
{recipe.tuning.kind.capitalize()} tuning: {summary.steps:,} steps of {training.batch_size} sentences
({summary.epochs:.1f} readings), learning rate {recipe.learning_rate:g}, {training.precision}, seed {recipe.seed}.
Ended: {summary.ended}. Energy: not measured.

## Limits

These figures hold for sentences like those it was tuned on, cut into words as those were. What the base has picked up
from its own training text is not examined here. Bias, privacy and safety: not measured.
"""
