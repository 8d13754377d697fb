"""What is told about a chat model in the end: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.records import Record
from rung.tasks.card_parts import record_row
from rung.tasks.chat.measuring import ANSWER_LOSS, Answer
from rung.tasks.chat.recipe import ChatRecipe
from rung.tasks.run import Run

BEFORE = f"{ANSWER_LOSS}_before"
GAIN = f"difference in {ANSWER_LOSS}"


@dataclass(frozen=True)
class ChatTuned:
    """How tuning went. `records` are measured on test conversations that played no part; empty when interrupted."""

    run: Path
    ended: str
    steps: int
    epochs: float
    parameters: int
    trained: int
    seconds: float
    tokens_per_second: float
    plan: Mapping[str, Any]
    records: tuple[Record, ...] = ()
    answers: tuple[Answer, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    def record(self, name: str) -> Record:
        """One of the measurements. KeyError where it was not made."""
        return {one.name: one for one in self.records}[name]

    def lines(self) -> list[str]:
        """What was tuned and how good it is, for people."""
        lines = [
            f"{self.trained:,} of {self.parameters:,} parameters trained, {self.steps:,} steps, {self.epochs:.1f} "
            f"times over the conversations at {self.tokens_per_second:,.0f} learned tokens/s; {self.seconds:,.0f} s in "
            f"all: {self.ended}."
        ]
        if not self.records:
            return lines
        lines += ["", "On test conversations that played no part in training:"]
        lines += [f"  {record}" for record in self.records]
        for answer in self.answers:
            asked = answer.conversation.prompt[-1].content
            lines += ["", f"  {asked}", f"  -> {answer.text}{'' if answer.ended else ' ...'}"]
        return [*lines, "", f"Next: rung chat {self.run}"]

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
            "tokens_per_second": round(self.tokens_per_second, 1),
            "metrics": [record.model_dump(mode="json") for record in self.records],
            "answers": [
                {"prompt": one.conversation.prompt[-1].content, "answer": one.text, "ended": one.ended}
                for one in self.answers
            ],
            "skipped": dict(self.skipped),
            "plan": dict(self.plan),
        }


def card(run: Run, recipe: ChatRecipe, summary: ChatTuned) -> str:
    """The model card of a finished run: `README.md` with Hugging Face metadata."""
    data, parent, training, method = run.header["data"], run.header["parent"], recipe.training, recipe.tuning
    how = f"{method.kind} tuning" + (f", rank {method.lora.r}" if method.lora else "")
    licence = "" if parent["licence"] == "unknown" else f"license: {parent['licence']}\n"
    return f"""---
library_name: {"peft" if method.kind == "lora" else "transformers"}
pipeline_tag: text-generation
{licence}tags: [rung, chat]
---

# {run.folder.name}

A model to talk with: {parent["name"]} ({parent["architecture"]}), tuned on conversations ({how};
{summary.trained:,} of {summary.parameters:,} parameters).

## Use

```
rung chat {run.folder}
```

## Measured on test conversations

| metric | value | 95 % interval | conversations | how |
|---|---|---|---|---|
{chr(10).join(record_row(record) for record in summary.records)}

## Data

{data["train_conversations"]:,} conversations to train on, {data["valid_conversations"]:,} to choose the checkpoint by,
{data["test_conversations"]:,} to test on; no prompt of one part is like one of another. Only the assistant's words were
learned: {data["train_targets"]:,} tokens. SHA-256 of data, template and tokenizer: `{data["sha256"]}`.

## Training

{summary.steps:,} steps of {training.batch_size} rows of {training.context_length} tokens ({summary.epochs:.1f}
readings), {training.optimizer}, learning rate {training.learning_rate}, {training.precision}, seed {recipe.seed}.
Ended: {summary.ended}. Energy: not measured.

## Parents

{parent["name"]} from `{parent["origin"]}`, licence {parent["licence"]}, SHA-256 of its weights
`{parent["weights_sha256"]}`.

## Limits

It answers in the manner of the conversations it was tuned on and invents what it does not know. Bias, privacy and
safety: not measured.
"""
