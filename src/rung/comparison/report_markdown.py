"""The same story in GitHub's Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rung.comparison import plots
from rung.comparison import report_story as story
from rung.comparison import report_tables as tables
from rung.comparison import report_text as words
from rung.comparison.plots_curves import curve_tables
from rung.comparison.report_details import ClassificationDetails
from rung.comparison.report_table import Table, columns
from rung.comparison.result import Comparison, RungResult

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~&@$])")
_AUTOLINK = re.compile(r"(https?|ftp)(:)|(www)(\.)", re.IGNORECASE)
_CELL = 160


def escape(text: str, limit: int = words.TEXT_LIMIT) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no links made of foreign addresses."""
    marked = _SPECIAL.sub(r"\\\1", words.clean(text, limit))
    return _AUTOLINK.sub(lambda m: f"{m[1]}&#58;" if m[2] else f"{m[3]}&#46;", marked)


def markdown(comparison: Comparison) -> str:
    """The whole report."""
    verdict = comparison.verdict
    blocks = [
        f"# {escape(verdict.sentence)}",
        f"**{escape(story.question(comparison))}** {words.answer_words(verdict.answer)}. "
        + " ".join(escape(reason) for reason in verdict.reasons),
        escape(story.terms(comparison)),
        bullet_list(
            f"**{escape(f.name, 80)}:** {escape(f.value)} ({escape(f.detail)})" for f in story.key_figures(comparison)
        ),
        "## The ladder at a glance",
        markdown_table(tables.ladder_table(comparison)),
        "## How far from the reference",
        markdown_table(plots.pairs_table(comparison)),
        "## How many labels it takes",
        *_learning(comparison),
        "## The data",
        *_data(comparison),
        "## Each rung",
        *(block for rung in sorted(comparison.rungs, key=lambda r: r.height) for block in _rung(comparison, rung)),
        "## Where small and large disagree",
        *_disagreements(comparison),
        "## What was not measured",
        bullet_list(escape(sentence) for sentence in comparison.not_measured),
        _optional(tables.missing_table(comparison)),
        "## How to repeat this",
        bullet_list(f"{name}: {escape(value, 4_000)}" for name, value in tables.facts_to_repeat(comparison)),
        "Figures, confusion matrices and all records: report.html and report.json beside this file.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def bullet_list(lines: Iterable[str]) -> str:
    """A list of finished lines."""
    return "\n".join(f"- {line}" for line in lines)


def markdown_table(content: Table) -> str:
    """A table with its caption above."""
    head = "| " + " | ".join(escape(column.title) for column in content.columns) + " |"
    rule = "|" + "|".join(" ---: " if column.numeric else " --- " for column in content.columns) + "|"
    rows = ["| " + " | ".join(escape(cell, _CELL) or " " for cell in row) + " |" for row in content.rows]
    return f"{escape(content.caption)}\n\n" + "\n".join([head, rule, *rows])


def _optional(content: Table | None) -> str:
    return markdown_table(content) if content else ""


def _learning(comparison: Comparison) -> list[str]:
    numbers = curve_tables(comparison)
    if not numbers:
        return ["Learning curves: not measured."]
    sentences = (
        f"{escape(rung.name, 80)}: {escape(rung.learning_curve.sentence)}"
        for rung in comparison.rungs
        if rung.learning_curve is not None
    )
    return [bullet_list(sentences), *(markdown_table(content) for content in numbers)]


def _data(comparison: Comparison) -> list[str]:
    data = comparison.data
    return [
        escape(str(data.power.get("sentence", words.NOT_MEASURED))),
        bullet_list(f"{name}: {escape(value)}" for name, value in tables.facts_of_data(comparison)),
        bullet_list(escape(sentence) for sentence in [*data.profile, *data.guessed]),
        markdown_table(tables.gate_table(comparison)),
        *([markdown_table(tables.class_table(comparison))] if data.classes else []),
    ]


def _rung(comparison: Comparison, rung: RungResult) -> list[str]:
    """Name and line of every rung; classes and groups only of the two that the verdict is about."""
    head = [f"### {escape(rung.name, 160)}", escape(story.summary_of_rung(comparison, rung.name))]
    if plots.role(comparison, rung.name) == "other":
        return head
    details = ClassificationDetails.model_validate(rung.details)
    found = (
        tables.per_class_table,
        tables.confused_table,
        tables.group_table,
        tables.leaked_table,
        tables.determinism_table,
    )
    return [*head, *(_optional(make(rung, details)) for make in found)]


def _disagreements(comparison: Comparison) -> list[str]:
    shown = comparison.disagreements[:10]
    if not shown:
        return ["There is no test item on which the best small rung and the reference differ, or none was kept."]
    rows = [(words.clean(item.text, 120), item.label, item.small, item.reference) for item in shown]
    caption = f"The first {len(shown)} of {len(comparison.disagreements):,} kept items"
    return [markdown_table(Table(caption, columns("Text", "True label", "Small", "Reference"), rows))]
