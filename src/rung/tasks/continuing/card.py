"""What carrying on changed, as plain values and as a section of the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rung.records import Record
from rung.tasks.continuing.asked import Continuation
from rung.tasks.continuing.drifting import DriftReport
from rung.tasks.continuing.gains import Change


def continued_json(
    *,
    changes: Sequence[Change],
    task_scores: Sequence[Change],
    drift: DriftReport | None,
    distance: float | None,
    not_measured: Mapping[str, str],
) -> dict[str, Any]:
    """What `results.json` and `--json` hold of it."""
    return {
        "changes": [change.to_json() for change in changes],
        "task_scores": [change.to_json() for change in task_scores],
        "drift": drift and drift.to_json(),
        "distance_from_parent": distance,
        "not_measured": dict(not_measured),
    }


def card_section(
    asked: Continuation,
    *,
    changes: Sequence[Change],
    task_scores: Sequence[Change],
    drift: DriftReport | None,
    distance: float | None,
    not_measured: Mapping[str, str],
) -> str:
    """The section of a model card, in Markdown."""
    rows = "\n".join(map(_row, changes))
    scored = ""
    if task_scores:
        rows_of_tasks = "\n".join(f"{_row(change)} {change.majority:.4f} |" for change in task_scores)
        scored = f"""
Accuracy on labelled tables, asked about by prompts without an example: the mean over items and templates. A label is
scored by its log-probability, less what it has after the same prompt around "N/A".

| table | before | after | change | items | the most frequent label |
|---|---|---|---|---|---|
{rows_of_tasks}
"""
    missing = "".join(f"\nNot measured: {what} ({why}).\n" for what, why in not_measured.items())
    moved = "" if distance is None else f" The weights moved by {distance:.2%} of their norm."
    drifted = ""
    if drift is not None:
        figures = "\n".join(f"| {record.name} | {_value(record)} {record.unit} |" for record in drift.records)
        new, old = (", ".join(word.word for word in side) for side in (drift.tell_new, drift.tell_old))
        drifted = f"""
How far the new text is from the old one, beside what two parts of the old one are from each other (intervals: 95 % of
random draws of documents):

| figure | value |
|---|---|
{figures}

Words that tell the new text: {new}. Words that tell the old one: {old}.
"""
    return f"""## Carried on

Begun from the parent's weights with a new optimiser and the learning rate warmed up and lowered again; replay of old
text: {asked.replay:.0%} of the rows; pull towards the parent's weights: {asked.penalty:g}.{moved}

| bits per byte of held-out | before | after | change | documents |
|---|---|---|---|---|
{rows}
{scored}{missing}{drifted}"""


def _row(change: Change) -> str:
    values = " | ".join(map(_value, (change.before, change.after, change.change)))
    return f"| {change.short_name} | {values} | {change.change.n:,} |"


def _value(record: Record) -> str:
    if record.value is None:
        return f"not measured: {record.not_measured}"
    spread = f" [{record.interval.low:.4f}, {record.interval.high:.4f}]" if record.interval else ""
    return f"{record.value:.4f}{spread}"
