"""What is told of a model that learned by rewards: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.records import Record
from rung.tasks.card_parts import record_row
from rung.tasks.chat.reward_recipe import RewardRecipe
from rung.tasks.run import Run

SOLVED = "solved"
BEFORE = f"{SOLVED}_before"
GAIN = f"difference in {SOLVED}"


@dataclass(frozen=True)
class RewardTuned:
    """How tuning went. `records` are measured on test problems that played no part; empty when interrupted.

    `answers`: (prompt, answer) of the first test problems.
    """

    run: Path
    ended: str
    steps: int
    parameters: int
    trained: int
    seconds: float
    answers_per_second: float
    plan: Mapping[str, Any]
    records: tuple[Record, ...] = ()
    answers: tuple[tuple[str, str], ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    def record(self, name: str) -> Record:
        """One of the measurements. KeyError where it was not made."""
        return {one.name: one for one in self.records}[name]

    def lines(self) -> list[str]:
        """What was tuned and how good it is, for people."""
        lines = [
            f"{self.trained:,} of {self.parameters:,} parameters trained, {self.steps:,} steps at "
            f"{self.answers_per_second:,.1f} answers/s; {self.seconds:,.0f} s in all: {self.ended}."
        ]
        if not self.records:
            return lines
        lines += ["", "On test problems that played no part in training:"]
        lines += [f"  {record}" for record in self.records]
        for prompt, answer in self.answers:
            lines += ["", f"  {prompt}", f"  -> {answer.strip()}"]
        return [*lines, "", f"Next: rung chat {self.run}"]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "run": str(self.run),
            "ended": self.ended,
            "steps": self.steps,
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            "seconds": round(self.seconds, 2),
            "answers_per_second": round(self.answers_per_second, 2),
            "metrics": [record.model_dump(mode="json") for record in self.records],
            "answers": [{"prompt": prompt, "answer": answer} for prompt, answer in self.answers],
            "skipped": dict(self.skipped),
            "plan": dict(self.plan),
        }


def card(run: Run, recipe: RewardRecipe, summary: RewardTuned) -> str:
    """The model card of a finished run: `README.md` with Hugging Face metadata."""
    data, parent, training, reward = run.header["data"], run.header["parent"], recipe.training, recipe.reward
    method = recipe.tuning
    licence = "" if parent["licence"] == "unknown" else f"license: {parent['licence']}\n"
    return f"""---
library_name: {"peft" if method.kind == "lora" else "transformers"}
pipeline_tag: text-generation
{licence}tags: [rung, chat, grpo]
---

# {run.folder.name}

{parent["name"]} ({parent["architecture"]}), which learned from its own answers to problems that can be checked (GRPO,
arXiv 2402.03300; {method.kind}; {summary.trained:,} of {summary.parameters:,} parameters).

## Use

```
rung chat {run.folder}
```

## Measured on test problems

| metric | value | 95 % interval | problems | how |
|---|---|---|---|---|
{chr(10).join(record_row(record) for record in summary.records)}

## Data

{data["train_problems"]:,} problems to learn from, {data["valid_problems"]:,} to choose the checkpoint by,
{data["test_problems"]:,} to test on; no prompt is in two parts. Hashes: `{data["sha256"]}`.

## Training

{summary.steps:,} steps of {training.batch_size} prompts, {reward.answers} answers to each of up to {reward.max_tokens}
tokens at temperature {reward.temperature:g}; an answer earned 1 by being right and {reward.ended:g} by ending its turn.
Learning rate {training.learning_rate}, distance from the base weighed {reward.beta:g}, {training.precision}, seed
{recipe.seed}. Ended: {summary.ended}. Energy: not measured.

## Parents

{parent["name"]} from `{parent["origin"]}`, licence {parent["licence"]}, SHA-256 of its weights
`{parent["weights_sha256"]}`.

## Limits

It was rewarded for final answers, not for how it came by them. Bias, privacy and safety: not measured.
"""
