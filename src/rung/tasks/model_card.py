"""The model card: `README.md` with Hugging Face metadata, made from what was recorded and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rung.tasks.card_parts import record_row
from rung.training.shapes import shape_in_words

if TYPE_CHECKING:
    from rung.tasks.run import Run, TrainSummary


_PYTHON = {
    "transformers": """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")""",
    "rung": """import rung

model = rung.load("{folder}")
(generation,) = model.generate("Once upon a time")""",
}


def model_card(run: Run, summary: TrainSummary, *, section: str = "") -> str:
    """The card of a finished run; `section` is what its kind of run adds to it."""
    recipe, data = run.recipe, run.header["data"]
    net, training = recipe.net, recipe.training
    records = [record for record in (summary.bits_per_byte, *summary.floors) if record is not None]
    parent = run.header["parent"]
    origin = f"Trained on from step {parent['step']:,} of `{parent['run']}`." if parent else "Trained from nothing."
    opened_by = "transformers" if net.family == "decoder" else "rung"
    name = f"{net.model_type} decoder" if net.family == "decoder" else net.family
    sample = "\n".join(f"> {line}" for line in summary.sample.strip().splitlines())
    return f"""---
library_name: {opened_by}
pipeline_tag: text-generation
tags: [rung]
---

# {run.folder.name}

A {summary.parameters:,}-parameter language model of the {name} family: {shape_in_words(net)},
vocabulary {recipe.tokenizer.vocab_size:,} ({recipe.tokenizer.kind}). {origin}

## Use

```
rung generate {run.folder} "Once upon a time"
```

```python
{_PYTHON[opened_by].format(folder=run.folder)}
```

## Measured on held-out text

| metric | value | 95 % interval | documents | how |
|---|---|---|---|---|
{chr(10).join(record_row(record) for record in records)}

The validation text chose the checkpoint too, so the figure may flatter it slightly; text of your own that played no
part is measured by `rung eval {run.folder} TEXT`.

{section + chr(10) if section else ""}## Data

{data["train_documents"]:,} documents ({data["train_bytes"]:,} bytes, {data["train_tokens"]:,} tokens) to train on and
{data["valid_documents"]:,} ({data["valid_bytes"]:,} bytes) held out, no near-duplicate across. SHA-256 of the prepared
text: `{data["sha256"]}`.

## Training

{summary.steps:,} steps of {training.batch_size} sequences ({summary.tokens:,} tokens, {summary.epochs:.1f} readings of
the text), {training.optimizer}, learning rate {training.learning_rate},
dropout {net.dropout}, {training.precision}, seed {recipe.seed}. Ended: {summary.ended}.
Steps refused by the guard: {sum(summary.skipped.values())}. Energy: not measured.

## Limits

The model knows the text it was trained on and nothing else. It invents facts, repeats what the text contains, and may
quote it word for word. Bias, privacy and safety: not measured.

## A sample

{sample or "> (empty)"}
"""
