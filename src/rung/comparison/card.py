"""The model card of a rung that a comparison kept: what it is, how good, how to use it, and what it is not for."""

from __future__ import annotations

from typing import Any

from rung.comparison.result import RungResult, Verdict
from rung.tasks.task import Task

_SHOWN = ("accuracy", "macro_f1", "log_loss", "ece", "bleu", "chrf", "latency_batch1_p50", "bytes_on_disk")


def rung_card(rung: RungResult, task: Task, verdict: Verdict) -> str:
    """Markdown with the head that the Hugging Face hub reads."""
    rows = [record for record in rung.metrics if record.name in _SHOWN and record.value is not None]
    table = "\n".join(
        f"| {record.name} | {record.value:.6g} {record.unit}{_interval(record)} | {record.n:,} |" for record in rows
    )
    facts = task.facts
    labels = ", ".join(str(one["label"]) for one in facts["classes"])
    labels_line = f"- Labels: {labels}\n" if labels else ""
    split, columns = facts["split"], ", ".join(facts["text_columns"])
    return f"""---
library_name: rung
pipeline_tag: {task.pipeline_tag}
---

# {rung.name}

{rung.description[0].upper()}{rung.description[1:]}. One rung of a ladder that `rung compare` climbed.

{labels_line}- Fitted on {split["train"]:,} items, chosen on {split["valid"]:,}, measured on {split["test"]:,}
  (split {split["method"]}, SHA-256 `{split["sha256"][:16]}`); text from {columns}, answer from {facts["target"]}
- Chosen on validation: {rung.chosen or "nothing to choose"}

| metric | on the test items | n |
| --- | --- | --- |
{table}

Verdict of the comparison: {verdict.sentence}

## Use

```
rung predict THIS_FOLDER "some text"
rung predict THIS_FOLDER --input new.csv --output labelled.parquet
```

These figures hold for texts like those it was fitted on; for others nothing is known until it is measured:
`rung eval THIS_FOLDER labelled.csv`.
"""


def _interval(record: Any) -> str:
    return f" [{record.interval.low:.6g}, {record.interval.high:.6g}]" if record.interval else ""
