"""What is told about a tuned sentence encoder in the end: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.objectives.similarity import WHOLE_BATCH
from rung.records import Record
from rung.tasks.card_parts import record_row
from rung.tasks.run import Run
from rung.tasks.similarity.tuning_recipe import SimilarityRecipe


@dataclass(frozen=True)
class SimilarityTuned:
    """How tuning went. `records` are measured on test rows that played no part; empty after an interruption."""

    run: Path
    ended: str
    steps: int
    epochs: float
    parameters: int
    trained: int
    seconds: float
    rows_per_second: float
    records: tuple[Record, ...]
    plan: Mapping[str, Any]
    remarks: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    def record(self, name: str) -> Record:
        """One of the measurements. KeyError where it was not made."""
        return {one.name: one for one in self.records}[name]

    def lines(self) -> list[str]:
        """What was tuned and how good it is, for people."""
        lines = [
            f"{self.trained:,} of {self.parameters:,} parameters trained, {self.steps:,} steps, {self.epochs:.1f} "
            f"times over the rows at {self.rows_per_second:,.0f} rows/s; {self.seconds:,.0f} s in all: {self.ended}.",
            *self.remarks,
        ]
        if not self.records:
            return lines
        lines += ["", "On test rows that played no part in training:"]
        lines += [f"  {record}" for record in self.records]
        return [*lines, "", f'Next: rung embed {self.run} "some text" "another text"']

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
            "rows_per_second": round(self.rows_per_second, 1),
            "metrics": [record.model_dump(mode="json") for record in self.records],
            "remarks": list(self.remarks),
            "skipped": dict(self.skipped),
            "plan": dict(self.plan),
        }


def card(run: Run, recipe: SimilarityRecipe, summary: SimilarityTuned) -> str:
    """The model card of a finished run: `README.md` with Hugging Face metadata."""
    data, parent, training = run.header["data"], run.header["parent"], recipe.training
    method = recipe.tuning
    how = f"{method.kind} tuning" + (f", rank {method.lora.r}, merged into the base" if method.lora else "")
    if method.layer_decay is not None:
        how += f", each layer at {method.layer_decay:g} times the rate of the next"
    whole = (
        "\nThis loss compares the rows of a batch with each other: a batch is never cut into parts, and another batch "
        "size is\nanother loss.\n"
        if training.loss in WHOLE_BATCH
        else ""
    )
    remarks = "\n".join(f"- {remark}" for remark in summary.remarks) or "- nothing was left out"
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [rung, sentence-transformers]
---

# {run.folder.name}

{parent["name"]} ({parent["architecture"]}), tuned on {data["kind"]}: texts that are alike get vectors that are near.

## Use

```
rung embed {run.folder} "some text" "another text"
```

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("{run.folder}").encode(["some text", "another text"])
```

## Measured on test rows

| metric | value | 95 % interval | rows | how |
|---|---|---|---|---|
{chr(10).join(record_row(record) for record in summary.records)}

## Data

{data["train"]:,} rows to tune on, {data["valid"]:,} to choose weights by, {data["test"]:,} to measure on. SHA-256 of
rows and split: `{data["sha256"]}`.

{remarks}

## Training

Base: {parent["name"]}, SHA-256 of its weights `{parent["weights_sha256"]}`, licence: {parent["licence"]}.
{how.capitalize()}: {summary.steps:,} steps of {training.batch_size} rows ({summary.epochs:.1f} readings), loss
{training.loss}, learning rate {recipe.learning_rate:g}, {training.precision}, seed {recipe.seed}. Ended:
{summary.ended}. Energy: not measured.
{whole}
## Limits

These figures hold for texts like those it was tuned on; for others nothing is known until it is measured. What the base
has picked up from its own training text is not examined here. Bias, privacy and safety: not measured.
"""
