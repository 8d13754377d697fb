"""What is measured and told of a model tuned by preferences: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.evaluation.intervals import compare, interval
from rung.evaluation.proportions import wilson
from rung.records import ItemScores, Record
from rung.tasks.card_parts import record_row
from rung.tasks.chat.preference_recipe import PreferenceRecipe
from rung.tasks.run import Run

ACCURACY = "preference_accuracy"
BEFORE = f"{ACCURACY}_before"
GAIN = f"difference in {ACCURACY}"


def preference_records(
    ids: Sequence[str],
    *,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    beta: float,
    drift: ItemScores | None,
    data_sha256: str,
) -> tuple[list[Record], dict[str, ItemScores]]:
    """How often the chosen answer is the likelier one, before and after; rewards; how far the model has moved.

    `before` and `after`: (pairs, 2) scores of chosen and rejected answers; `drift` as `_Tuning._drift` gives it.
    """
    ones = np.ones(len(ids))

    def items(values: NDArray[Any]) -> ItemScores:
        return ItemScores(list(ids), values.astype(np.float64), ones)

    margins = beta * ((after - before)[:, 0] - (after - before)[:, 1])
    scores = {
        ACCURACY: items(after[:, 0] > after[:, 1]),
        BEFORE: items(before[:, 0] > before[:, 1]),
        "reward_accuracy": items(margins > 0),
        "reward_margin": items(margins),
    }
    how = {
        ACCURACY: "share of pairs whose chosen answer is the likelier one",
        BEFORE: "the same of the base",
        "reward_accuracy": "share of pairs whose chosen answer has gained more over the base",
        "reward_margin": f"beta {beta:g} x (gain of the chosen - gain of the rejected answer)",
    }
    records = [
        Record(
            name=name,
            value=one.mean,
            unit="nats" if name == "reward_margin" else "share",
            n=len(ids),
            interval=interval(one) if name == "reward_margin" else wilson(int(one.values.sum()), len(ids)),
            signature=how[name],
            data_sha256=data_sha256,
        )
        for name, one in scores.items()
    ]
    records.append(compare(scores[ACCURACY], scores[BEFORE], name=ACCURACY, unit="share"))
    if drift is not None:
        scores["kl"] = drift
        records.append(
            Record(
                name="kl",
                value=drift.mean,
                unit="nats/answer",
                n=len(drift.ids),
                interval=interval(drift),
                signature="divergence from the base, from one sampled answer to each of the first test prompts",
                data_sha256=data_sha256,
            )
        )
    return records, scores


@dataclass(frozen=True)
class PreferenceTuned:
    """How tuning went. `records` are measured on test pairs that played no part; empty when interrupted."""

    run: Path
    ended: str
    steps: int
    epochs: float
    parameters: int
    trained: int
    seconds: float
    pairs_per_second: float
    plan: Mapping[str, Any]
    records: tuple[Record, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    def record(self, name: str) -> Record:
        """One of the measurements. KeyError where it was not made."""
        return {one.name: one for one in self.records}[name]

    def lines(self) -> list[str]:
        """What was tuned and how good it is, for people."""
        lines = [
            f"{self.trained:,} of {self.parameters:,} parameters trained, {self.steps:,} steps, {self.epochs:.1f} "
            f"times over the pairs at {self.pairs_per_second:,.1f} a second; {self.seconds:,.0f} s in all: "
            f"{self.ended}."
        ]
        if not self.records:
            return lines
        lines += ["", "On test pairs that played no part in training:"]
        lines += [f"  {record}" for record in self.records]
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
            "pairs_per_second": round(self.pairs_per_second, 2),
            "metrics": [record.model_dump(mode="json") for record in self.records],
            "skipped": dict(self.skipped),
            "plan": dict(self.plan),
        }


def card(run: Run, recipe: PreferenceRecipe, summary: PreferenceTuned) -> str:
    """The model card of a finished run: `README.md` with Hugging Face metadata."""
    data, parent, training, method = run.header["data"], run.header["parent"], recipe.training, recipe.tuning
    form = "means over tokens" if recipe.preference.length_normalised else "sums over tokens"
    licence = "" if parent["licence"] == "unknown" else f"license: {parent['licence']}\n"
    return f"""---
library_name: {"peft" if method.kind == "lora" else "transformers"}
pipeline_tag: text-generation
{licence}tags: [rung, chat, dpo]
---

# {run.folder.name}

{parent["name"]} ({parent["architecture"]}), tuned by direct preference optimisation (arXiv 2305.18290) to prefer the
better of two answers ({method.kind}; {summary.trained:,} of {summary.parameters:,} parameters).

## Use

```
rung chat {run.folder}
```

## Measured on test pairs

| metric | value | 95 % interval | pairs | how |
|---|---|---|---|---|
{chr(10).join(record_row(record) for record in summary.records)}

## Data

{data["train_pairs"]:,} pairs to train on, {data["valid_pairs"]:,} to choose the checkpoint by, {data["test_pairs"]:,}
to test on; no prompt of one part is like one of another. {" ".join(f"{remark}." for remark in data["remarks"])}
SHA-256 of data, template and tokenizer: `{data["sha256"]}`.

## Training

{summary.steps:,} steps of {training.batch_size} pairs ({summary.epochs:.1f} readings), beta {recipe.beta:g} on {form},
{training.optimizer}, learning rate {training.learning_rate}, {training.precision}, seed {recipe.seed}. Ended:
{summary.ended}. Energy: not measured.

## Parents

{parent["name"]} from `{parent["origin"]}`, licence {parent["licence"]}, SHA-256 of its weights
`{parent["weights_sha256"]}`: the reference.

## Limits

It prefers what the pairs prefer, and still invents what it does not know. Bias, privacy and safety: not measured.
"""
