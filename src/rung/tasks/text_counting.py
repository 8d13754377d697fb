"""One n-gram model run from its resolved recipe to a finished folder: counted in one pass, so nothing is resumed."""

from __future__ import annotations

import time

import numpy as np

from rung.evaluation.bits_per_byte import bits_per_byte
from rung.evaluation.compressors import compressor_floors
from rung.generation.engine import Engine
from rung.generation.options import SamplingOptions
from rung.nets.ngram import save_ngram
from rung.records import Record
from rung.tasks.card_parts import record_row
from rung.tasks.ranked_training import Session
from rung.tasks.run import Run, TrainSummary, write_measurements
from rung.tasks.text_preparation import PreparedText
from rung.tasks.text_training import SAMPLE_TOKENS
from rung.training.ngram.kneser_ney import Estimate, estimate

_EVALUATED_BYTES = 2_000_000  # of held-out text, evenly spread; half a second


class TextCounting:
    """Counts `run` by its recipe, measures it, and makes its folder a model."""

    def __init__(self, run: Run, text: PreparedText, session: Session) -> None:
        """Take a run whose recipe has no gaps, and its text."""
        self.run, self.text, self.session = run, text, session

    def train(self) -> TrainSummary:
        """Count from the beginning: an interrupted run left nothing to go on from but its plan."""
        self.run.write("training")
        recipe, train = self.run.recipe, self.text.train
        stream = np.empty(train.num_tokens + 1, train.dtype)
        stream[0], stream[1:] = train.eos_token_id, train.read(0, train.num_tokens)
        began = time.monotonic()
        made = estimate(
            stream,
            order=recipe.net.order or 1,
            vocab_size=self.text.tokenizer.vocab_size,
            eos_token_id=train.eos_token_id,
            progress=self.session.progress,
        )
        return self._publish(made, seconds=time.monotonic() - began)

    def _publish(self, made: Estimate, *, seconds: float) -> TrainSummary:
        """Measure the model on held-out text, let it write a sample, and make the run folder that model."""
        record, scores = bits_per_byte(
            made.model, self.text.valid, max_bytes=_EVALUATED_BYTES, progress=self.session.progress
        )
        floors = compressor_floors(self.text.corpus.texts("valid", _EVALUATED_BYTES), data_sha256=record.data_sha256)
        options = SamplingOptions(temperature=0.8, top_p=0.95, max_tokens=SAMPLE_TOKENS, seed=self.run.recipe.seed)
        (sample,) = Engine(made.model, self.text.tokenizer).generate("", options)
        tokens = self.text.train.num_tokens
        self.run.header["plan"] |= {
            "parameters": made.model.config.num_parameters,
            "training_seconds": round(seconds, 2),
            "discounts": made.discounts,
            "discounts_estimated": made.estimated,
        }
        summary = TrainSummary(
            run=self.run.folder,
            ended="finished",
            steps=0,
            tokens=tokens,
            epochs=1.0,
            parameters=made.model.config.num_parameters,
            seconds=time.monotonic() - self.session.began,
            tokens_per_second=tokens / seconds if seconds else 0.0,
            bits_per_byte=record,
            floors=tuple(floors),
            sample=sample.text,
            plan=self.run.header["plan"],
        )
        save_ngram(made.model, self.run.folder)
        card = _card(self.run, made, [record, *floors], sample.text)
        write_measurements(self.run.folder, card=card, records=[record, *floors], scores={record.name: scores})
        self.run.write("finished")
        return summary


def _card(run: Run, made: Estimate, records: list[Record], sample: str) -> str:
    """The model card: what was recorded, and nothing else."""
    config, data, recipe = made.model.config, run.header["data"], run.recipe
    orders = "\n".join(
        f"| {order} | {count:,} | {', '.join(f'{discount:.3f}' for discount in discounts)} "
        f"| {'estimated' if estimated else 'fall-back: too few counts to estimate them'} |"
        for order, (count, discounts, estimated) in enumerate(
            zip(config.num_ngrams, made.discounts, made.estimated, strict=True), start=1
        )
    )
    quoted = "\n".join(f"> {line}" for line in sample.strip().splitlines())
    return f"""---
pipeline_tag: text-generation
tags: [rung, n-gram]
---

# {run.folder.name}

An n-gram language model of order {config.order} with interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998)
over {config.vocab_size:,} tokens ({recipe.tokenizer.kind}). It is counted in one pass over the text; there are no
weights to train, and no seed decides anything but the sample.

## Use

```
rung generate {run.folder} "Once upon a time"
```

Rung alone reads this folder; `rung.nets.ngram_arpa.export_arpa` writes the ARPA file that KenLM and SRILM read.

## Measured on held-out text

| metric | value | 95 % interval | documents | how |
|---|---|---|---|---|
{chr(10).join(record_row(record) for record in records)}

## Data

{data["train_documents"]:,} documents ({data["train_bytes"]:,} bytes, {data["train_tokens"]:,} tokens) to count and
{data["valid_documents"]:,} ({data["valid_bytes"]:,} bytes) held out, no near-duplicate across. SHA-256 of the prepared
text: `{data["sha256"]}`.

## N-grams

| tokens | different | discounts for counts of 1, 2, more | how |
|---|---|---|---|
{orders}

## Limits

The model sees the last {config.order - 1} tokens and nothing before them. It stores every n-gram of its text, so it
quotes it word for word. Bias, privacy and safety: not measured.

## A sample

{quoted or "> (empty)"}
"""
