"""What is measured and told of a model tuned by preferences: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rung.evaluation.intervals import compare, interval
from rung.evaluation.proportions import wilson
from rung.objectives.preference import DirectPreference
from rung.records import ItemScores, Record
from rung.tasks.card_parts import record_row
from rung.tasks.chat.preference_recipe import PreferenceRecipe
from rung.tasks.run import Run

Floats = NDArray[np.float64]
REWARD_ACCURACY, REWARD_MARGIN = "reward_accuracy", "reward_margin"
LIKELIER, LIKELIER_BY_TOKEN = "likelihood_accuracy", "likelihood_accuracy_by_token"
_WHAT = {
    LIKELIER: "share of pairs whose chosen answer is the likelier one",
    LIKELIER_BY_TOKEN: "share of pairs whose chosen answer is the likelier one by token",
}


def before(name: str) -> str:
    """The name of the base's record."""
    return f"{name}_before"


def gain(name: str) -> str:
    """The name of the difference to the base."""
    return f"difference in {name}"


def preference_records(
    ids: Sequence[str],
    *,
    base: Floats,
    tuned: Floats,
    tokens: NDArray[np.int64],
    objective: DirectPreference,
    drift: ItemScores | None,
    data_sha256: str,
) -> tuple[list[Record], dict[str, ItemScores]]:
    """How often the chosen answer of a pair is preferred, by three measures; and how far the model has moved.

    `base` and `tuned`: (pairs, 2) ln P of the chosen and the rejected answer, `tokens` their lengths. Rewards are those
    of DPO, gains over the base; all are 0 for the base, so chance decides. Plain likelihood asks more: the chosen
    answer must have overtaken the other. Summed over tokens that is mostly a question of which is shorter; by token it
    is not (Meng et al. 2024, arXiv 2405.14734, section 2.2). `drift`: see `_Tuning._drift`.
    """
    ones = np.ones(len(ids))
    margins = objective.margins(torch.from_numpy(tuned - base), torch.from_numpy(tokens)).numpy()
    scores = {REWARD_ACCURACY: margins > 0, REWARD_MARGIN: margins}
    how = {
        REWARD_ACCURACY: "share of pairs whose chosen answer gained more over the base, where it is 0.5 by definition",
        REWARD_MARGIN: f"beta {objective.beta:g} x (gain of the chosen - gain of the rejected answer)",
    }
    for name, over in ((LIKELIER, 1), (LIKELIER_BY_TOKEN, tokens)):
        for one, found in ((before(name), base / over), (name, tuned / over)):
            scores[one], how[one] = found[:, 0] > found[:, 1], _WHAT[name]
    items = {name: ItemScores(list(ids), one.astype(np.float64), ones) for name, one in scores.items()}
    records = [
        Record(
            name=name,
            value=one.mean,
            unit="nats" if name == REWARD_MARGIN else "share",
            n=len(ids),
            interval=interval(one) if name == REWARD_MARGIN else wilson(int(one.values.sum()), len(ids)),
            signature=how[name],
            data_sha256=data_sha256,
        )
        for name, one in items.items()
    ]
    records += [compare(items[name], items[before(name)], name=name, unit="share") for name in _WHAT]
    if drift is not None:
        items["kl"] = drift
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
    return records, items


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
