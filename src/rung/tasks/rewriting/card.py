"""The model card of a text-to-text network, made from what was recorded and nothing else."""

from __future__ import annotations

from rung.tasks.card_parts import record_row
from rung.tasks.rewriting.preparation import PreparedPairs
from rung.tasks.rewriting.recipe import RewritingRecipe
from rung.tasks.rewriting.summary import RewritingSummary
from rung.tasks.run import Run

_WITH_TRANSFORMERS = """
```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model = AutoModelForSeq2SeqLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
```
"""


def model_card(run: Run, recipe: RewritingRecipe, pairs: PreparedPairs, summary: RewritingSummary) -> str:
    """The card of a finished run."""
    net, training, split = recipe.net, recipe.training, pairs.split
    names = f"{split.train.source_name} to {split.train.target_name}"
    python = _WITH_TRANSFORMERS.format(folder=run.folder) if net.family == "transformer" else ""
    remarks = "\n".join(f"- {remark}" for remark in pairs.remarks) or "- nothing was left out"
    return f"""---
library_name: transformers
pipeline_tag: text2text-generation
tags: [rung]
---

# {run.folder.name}

A {summary.parameters:,}-parameter {net.family} that rewrites {names}: {net.num_hidden_layers} layers a side, hidden
size {net.hidden_size}, texts up to {net.max_position_embeddings} tokens, {recipe.tokenizer.vocab_size:,} subwords for
both sides. Trained from nothing.

## Use

```
rung predict {run.folder} "..."
```
{python}
## Measured on test pairs that played no part in training

| metric | value | 95 % interval | pairs | how |
|---|---|---|---|---|
{chr(10).join(record_row(record, digits=2) for record in summary.records)}

## Data

{len(pairs.train):,} pairs to train on, {len(pairs.valid):,} to validate, {len(split.test):,} to test; no source is in
two parts. SHA-256 of the pairs: `{split.sha256}`.

{remarks}
{_pretraining(summary)}
## Training

{summary.steps:,} steps of about {training.tokens_per_batch:,} tokens a side ({summary.epochs:.1f} readings of the
pairs), {training.optimizer}, learning rate {training.learning_rate:g}, dropout {net.dropout}, label smoothing
{training.label_smoothing:g}, {training.precision}, seed {recipe.seed}. Ended: {summary.ended}. Kept:
{summary.weights}, chosen on the validation pairs. Energy: not measured.

## Limits

The model knows the pairs it was trained on and nothing else; on other kinds of text it writes fluent nonsense. Bias,
privacy and safety: not measured.
"""


def _pretraining(summary: RewritingSummary) -> str:
    """The section about raw text, or nothing where there was none."""
    found = summary.pretraining
    if not found:
        return ""
    return f"""
## Pretraining

Before the pairs, the network learned to restore hidden spans (Raffel et al. 2020, section 3.1.4) of raw text, and the
tokenizer was trained on some of that too: {found["documents"]:,} documents, {found["bytes"]:,} bytes,
{found["tokens"]:,} tokens, read {found["epochs"]:.1f} times in {found["steps"]:,} steps. From
{", ".join(f"`{name}`" for name in found["files"])}; SHA-256 of the text: `{found["sha256"]}`.
"""
