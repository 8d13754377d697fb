"""What is told about a masked language model in the end: to who trained it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.evaluation.masked_tokens import ACCURACY, BITS, UNIGRAM
from rung.evaluation.pseudo_likelihood import NAME as PSEUDO_BITS
from rung.records import Record
from rung.tasks.masked_language_modelling.recipe import MaskedRecipe
from rung.tasks.run import Run


@dataclass(frozen=True)
class MaskedSummary:
    """What a training command has to say in the end.

    `records` are measured on held-out text: masked_accuracy and masked_bits, the same of a unigram model, and
    pseudo_bits_per_byte; empty after an interruption.
    """

    run: Path
    ended: str
    steps: int
    tokens: int
    epochs: float
    parameters: int
    seconds: float
    tokens_per_second: float
    records: tuple[Record, ...]
    plan: Mapping[str, Any]
    skipped: Mapping[str, int] = field(default_factory=dict)

    def record(self, name: str) -> Record:
        """One of the measurements. KeyError where it was not made."""
        return {one.name: one for one in self.records}[name]

    def lines(self) -> list[str]:
        """What was trained and how good it is, for people."""
        lines = [
            f"{self.parameters:,} parameters, {self.steps:,} steps, {self.tokens:,} tokens ({self.epochs:.1f} times "
            f"the text) at {self.tokens_per_second:,.0f} tokens/s; {self.seconds:,.0f} s in all: {self.ended}."
        ]
        return [*lines, *measured_lines(self.records)]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "run": str(self.run),
            "ended": self.ended,
            "steps": self.steps,
            "tokens": self.tokens,
            "epochs": round(self.epochs, 3),
            "parameters": self.parameters,
            "seconds": round(self.seconds, 2),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "records": [record.model_dump(mode="json") for record in self.records],
            "skipped": dict(self.skipped),
            "plan": dict(self.plan),
        }


def measured_lines(records: tuple[Record, ...]) -> list[str]:
    """The measurements for people, each beside what a unigram model does."""
    by_name = {record.name: record for record in records}
    lines = []
    if ACCURACY in by_name:
        accuracy, blind = by_name[ACCURACY], by_name[f"{UNIGRAM}_{ACCURACY}"]
        bits, blind_bits = by_name[BITS], by_name[f"{UNIGRAM}_{BITS}"]
        lines += [
            f"Hidden tokens guessed right: {_percent(accuracy)} ({accuracy.n:,} documents held out); always the most "
            f"frequent token: {_percent(blind)}.",
            f"Surprise: {bits.value:.2f} bits per hidden token; by token frequencies alone {blind_bits.value:.2f}.",
        ]
    if PSEUDO_BITS in by_name:
        lines.append(f"{by_name[PSEUDO_BITS]}: not to be compared with bits per byte of other language models.")
    return lines


def _percent(record: Record) -> str:
    spread = f" [{record.interval.low:.1%}, {record.interval.high:.1%}]" if record.interval else ""
    return f"{record.value:.1%}{spread}"


def card(run: Run, recipe: MaskedRecipe, summary: MaskedSummary) -> str:
    """The model card of a finished run: `README.md` with Hugging Face metadata."""
    net, training, data = recipe.net, recipe.training, run.header["data"]
    rows = "\n".join(_row(record) for record in summary.records)
    hidden = "words" if recipe.masking.whole_words else "tokens"
    return f"""---
library_name: transformers
pipeline_tag: fill-mask
tags: [rung]
---

# {run.folder.name}

A {summary.parameters:,}-parameter BERT: {net.num_hidden_layers} layers, hidden size {net.hidden_size}, windows of
{net.max_position_embeddings} tokens, {summary.plan["vocab_size"]:,} lower-cased word pieces. Trained from nothing to
guess hidden words.

## Use

```
rung predict {run.folder} "Paris is the [MASK] of France"
rung eval {run.folder} TEXT
rung compare DATA --target COL --rungs linear,folder:{run.folder}
```

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

model = AutoModelForMaskedLM.from_pretrained("{run.folder}")
tokenizer = AutoTokenizer.from_pretrained("{run.folder}")
```

## Measured on held-out text

| metric | value | 95 % interval | documents | how |
|---|---|---|---|---|
{rows}

Pseudo-bits are no bits: a token is guessed from both sides. They compare neither with the bits per byte of models that
read from left to right nor between tokenizers. The validation text chose the checkpoint too, so the figures may
flatter it slightly.

## Data

{data["train_documents"]:,} documents ({data["train_bytes"]:,} bytes, {data["train_tokens"]:,} tokens) to train on and
{data["valid_documents"]:,} ({data["valid_bytes"]:,} bytes) held out, no near-duplicate across. SHA-256 of the prepared
text: `{data["sha256"]}`.

## Training

{summary.steps:,} steps of {training.batch_size} windows ({summary.tokens:,} tokens, {summary.epochs:.1f} readings of
the text), {recipe.masking.share:.0%} of the {hidden} hidden anew in each reading, {training.optimizer}, learning rate
{training.learning_rate}, dropout {net.dropout}, {training.precision}, seed {recipe.seed}. Ended: {summary.ended}.
Steps refused by the guard: {sum(summary.skipped.values())}. Energy: not measured.

## Limits

It knows the text it was trained on and nothing else; it guesses what is usual there, not what is true. Bias, privacy
and safety: not measured.
"""


def _row(record: Record) -> str:
    interval = f"{record.interval.low:.4f} to {record.interval.high:.4f}" if record.interval else "-"
    value = "not measured" if record.value is None else f"{record.value:.4f} {record.unit}"
    return f"| {record.name} | {value} | {interval} | {record.n:,} | {record.signature} |"
