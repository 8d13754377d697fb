"""What is told about an encoder-decoder that was tuned on pairs: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.data.pairs import Pairs
from rung.evaluation.intervals import compare, difference_interval
from rung.evaluation.summed import SummedScores
from rung.evaluation.translation import bleu_scores, chrf_scores
from rung.records import Record
from rung.tasks.card_parts import record_row
from rung.tasks.rewriting.measuring import Measured
from rung.tasks.rewriting.summary import Example
from rung.tasks.rewriting.tuning_recipe import RewriteTuningRecipe
from rung.tasks.run import Run
from rung.tasks.tuning.text_summary import method_in_words

BEFORE, GAINED, UNCHANGED = "{}_before", "{}_gained", "bleu_of_unchanged_source"


@dataclass(frozen=True)
class RewritingTuned:
    """How tuning went. After an interruption nothing is measured: `records` and `examples` are empty.

    `records` are the metrics after tuning, before it, and the paired differences, all on the same test pairs.
    """

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
    examples: tuple[Example, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """What was tuned and how good it is, for people."""
        lines = [
            f"{self.trained:,} of {self.parameters:,} parameters trained, {self.steps:,} steps "
            f"({self.epochs:.1f} times over the pairs) at {self.tokens_per_second:,.0f} target tokens/s; "
            f"{self.seconds:,.0f} s in all: {self.ended}."
        ]
        if not self.records:
            return lines
        lines += ["", "On test pairs that played no part in training:"]
        lines += [f"  {record}" for record in self.records]
        for example in self.examples:
            lines += ["", f"  {example.source}", f"  -> {example.written}", f"  (wanted: {example.reference})"]
        return [*lines, "", f'Next: rung predict {self.run} "..."', f"      rung eval {self.run} pairs.csv"]

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
            "examples": [vars(example) for example in self.examples],
            "skipped": dict(self.skipped),
            "plan": dict(self.plan),
        }


def compared(before: Measured, after: Measured) -> list[Record]:
    """The metrics after and before tuning, their paired differences, and BLEU of sources left as they are."""
    pairs = after.pairs
    gains = [
        _difference(
            name, count(pairs.ids, before.written, pairs.targets), count(pairs.ids, after.written, pairs.targets)
        )
        for name, count in (("bleu", bleu_scores), ("chrf", chrf_scores))
    ]
    for name, scores in after.scores.items():
        gain = compare(scores, before.scores[name], name=name, unit="F1")
        gains.insert(0, gain.model_copy(update={"name": GAINED.format(name), "data_sha256": pairs.sha256}))
    renamed = [record.model_copy(update={"name": BEFORE.format(record.name)}) for record in before.records]
    return [*after.records, *renamed, *gains, _of_unchanged(pairs)]


def _difference(name: str, before: SummedScores, after: SummedScores) -> Record:
    return Record(
        name=GAINED.format(name),
        value=after.value - before.value,
        unit="points of 100",
        n=len(after.ids),
        interval=difference_interval(after, before),
        signature="paired by pair",
    )


def _of_unchanged(pairs: Pairs) -> Record:
    """What a model that rewrites nothing would have: much where texts are corrected, little in translation."""
    return Record(
        name=UNCHANGED,
        value=bleu_scores(pairs.ids, pairs.sources, pairs.targets).value,
        unit="points of 100",
        n=len(pairs),
        interval=None,
        signature="the source taken for the target",
        data_sha256=pairs.sha256,
    )


def card(run: Run, recipe: RewriteTuningRecipe, summary: RewritingTuned, remarks: tuple[str, ...]) -> str:
    """The model card of a finished run: `README.md` with Hugging Face metadata."""
    data, parent, training = run.header["data"], run.header["parent"], recipe.training
    is_adapter = recipe.tuning.kind == "lora"
    metadata = (
        ["library_name: peft", f"base_model: {parent['origin']}"] if is_adapter else ["library_name: transformers"]
    )
    if parent["licence"] != "unknown":
        metadata.append(f"license: {parent['licence']}")
    prefix = f" Before every source stands `{recipe.pairs.prefix}`." if recipe.pairs.prefix else ""
    told = "\n".join(f"- {remark}" for remark in remarks) or "- nothing was left out"
    return f"""---
{chr(10).join(metadata)}
pipeline_tag: text2text-generation
tags: [rung]
---

# {run.folder.name}

{parent["name"]} ({parent["architecture"]}), tuned to rewrite {data["source"]} to {data["target"]}.{prefix}{
        " This folder is an adapter: it needs its base." if is_adapter else ""
    }

## Use

```
rung predict {run.folder} "..."
```

## Measured on test pairs that played no part in training

| metric | value | 95 % interval | pairs | how |
|---|---|---|---|---|
{chr(10).join(record_row(record, digits=2) for record in summary.records)}

Base and tuned model write with the same settings. `bleu_gained` and its like are positive where tuning helped.

## Data

{data["train_pairs"]:,} pairs to train on, {data["valid_pairs"]:,} to choose the weights by, {data["test_pairs"]:,} to
test; no source is in two parts. SHA-256 of the pairs: `{data["sha256"]}`.

{told}

## Training

Base: {parent["name"]}, SHA-256 of its weights `{parent["weights_sha256"]}`, licence: {parent["licence"]}.
{method_in_words(recipe.tuning)}; {summary.steps:,} steps of about {training.tokens_per_batch:,} tokens a side
({summary.epochs:.1f} readings of the pairs), AdamW, learning rate {training.learning_rate:g}, dropout
{training.dropout:g}, label smoothing {training.label_smoothing:g}, {training.precision}, seed {recipe.seed}. Ended:
{summary.ended}. Steps refused by the guard: {sum(summary.skipped.values())}. Energy: not measured.

## Limits

What the base has picked up from its own training is still there and is not examined here. On texts unlike those it was
tuned on it writes fluent nonsense. Bias, privacy and safety: not measured.
"""
