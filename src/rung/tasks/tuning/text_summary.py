"""What is told about a language model that was tuned on raw text: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.records import Record
from rung.tasks.card_parts import record_row
from rung.tasks.run import Run
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.text_recipe import TextTuningRecipe

BEFORE = "bits_per_byte_before"
GAIN = "bits_per_byte_gained"


@dataclass(frozen=True)
class TextTuned:
    """How tuning went. `before` and `after`: bits per byte of the same held-out text; `gain`: their paired difference.

    All three are None after an interruption.
    """

    run: Path
    ended: str
    steps: int
    tokens: int
    epochs: float
    parameters: int
    trained: int
    seconds: float
    tokens_per_second: float
    plan: Mapping[str, Any]
    before: Record | None = None
    after: Record | None = None
    gain: Record | None = None
    sample: str = ""
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def records(self) -> tuple[Record, ...]:
        """The measurements that were made."""
        return tuple(record for record in (self.after, self.before, self.gain) if record is not None)

    def lines(self) -> list[str]:
        """What was tuned and how good it is, for people."""
        lines = [
            f"{self.trained:,} of {self.parameters:,} parameters trained, {self.steps:,} steps, {self.tokens:,} tokens "
            f"({self.epochs:.2f} times over the text) at {self.tokens_per_second:,.0f} tokens/s; "
            f"{self.seconds:,.0f} s in all: {self.ended}."
        ]
        if self.records:
            lines += ["", "Bits per byte of held-out text (fewer is better):"]
            lines += [f"  {record}" for record in self.records]
            lines += ["", "It writes:", f"  {self.sample.strip()}", "", f"Next: rung generate {self.run} 'Once upon a'"]
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "run": str(self.run),
            "ended": self.ended,
            "steps": self.steps,
            "tokens": self.tokens,
            "epochs": round(self.epochs, 3),
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            "seconds": round(self.seconds, 2),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "metrics": [record.model_dump(mode="json") for record in self.records],
            "sample": self.sample,
            "skipped": dict(self.skipped),
            "plan": dict(self.plan),
        }


def card(run: Run, recipe: TextTuningRecipe, summary: TextTuned) -> str:
    """The model card of a finished run: `README.md` with Hugging Face metadata."""
    data, parent, training = run.header["data"], run.header["parent"], recipe.training
    is_adapter = recipe.tuning.kind == "lora"
    metadata = (
        ["library_name: peft", f"base_model: {parent['origin']}"] if is_adapter else ["library_name: transformers"]
    )
    if parent["licence"] != "unknown":
        metadata.append(f"license: {parent['licence']}")
    sample = "\n".join(f"> {line}" for line in summary.sample.strip().splitlines())
    return f"""---
{chr(10).join(metadata)}
pipeline_tag: text-generation
tags: [rung]
---

# {run.folder.name}

{parent["name"]} ({parent["architecture"]}), carried on with texts of the user's own. {
        "This folder is an adapter: it needs its base." if is_adapter else ""
    }

## Use

```
rung generate {run.folder} "Once upon a time"
```

## Measured on held-out text

| metric | value | 95 % interval | documents | how |
|---|---|---|---|---|
{chr(10).join(record_row(record) for record in summary.records)}

The held-out text chose nothing: the weights are those of the last step. `{GAIN}` is positive where fewer bits are
needed after tuning than before.

## Data

{data["train_documents"]:,} documents ({data["train_bytes"]:,} bytes, {data["train_tokens"]:,} tokens) to tune on, no
near-duplicate of what was held out. SHA-256 of the prepared text: `{data["sha256"]}`.

## Training

Base: {parent["name"]}, SHA-256 of its weights `{parent["weights_sha256"]}`, licence: {parent["licence"]}.
{method_in_words(recipe.tuning)}; {summary.steps:,} steps of {training.batch_size} rows of {
        training.context_length
    } tokens ({summary.epochs:.2f} readings of the text), AdamW, learning rate {training.learning_rate:g}, {
        training.precision
    }, seed
{recipe.seed}. Ended: {summary.ended}. Steps refused by the guard: {
        sum(summary.skipped.values())
    }. Energy: not measured.

## Limits

What the base has picked up from its own training text is still there and is not examined here. The model invents facts
and may quote the texts it was tuned on word for word. Bias, privacy and safety: not measured.

## A sample

{sample or "> (empty)"}
"""


def method_in_words(method: TuningMethod) -> str:
    """How a base was tuned."""
    if method.lora is None:
        layers = (
            "" if method.layer_decay is None else f", each layer at {method.layer_decay:g} times the rate of the next"
        )
        return f"All weights{layers}{', thawed from the top layer down' if method.gradual else ''}"
    kind = "DoRA" if method.lora.use_dora else "LoRA"
    targets = method.lora.target_modules
    named = targets if isinstance(targets, str) else ", ".join(targets)
    return (
        f"{kind} of rank {method.lora.r}, alpha {method.lora.lora_alpha:g}, on {named}, base in {method.base_precision}"
    )
