"""The page's part about one rung: calibration, confusion, classes, groups, determinism, all records."""

from __future__ import annotations

from rung.comparison import report_tables as tables
from rung.comparison import report_text as words
from rung.comparison.plots import role
from rung.comparison.plots_rung import calibration
from rung.comparison.report_details import ClassificationDetails
from rung.comparison.report_parts import esc, facts, figure, fold, foreign, paragraph, table
from rung.comparison.report_story import summary_of_rung
from rung.comparison.report_table import Table
from rung.comparison.result import Comparison, RungResult


def rung_section(comparison: Comparison, rung: RungResult, position: int) -> str:
    """One rung, folded away unless it is the chosen one or the reference."""
    details = ClassificationDetails.model_validate(rung.details)
    kind = role(comparison, rung.name)
    anchor = f"rung-{position}"
    metric = words.primary_metric(comparison)
    told = tables.marks(comparison, rung.name)
    quality = words.with_interval(tables.record(rung, metric))
    aside = "; ".join(filter(None, [f"{words.label(metric)} {quality}", told]))
    body = [
        paragraph(summary_of_rung(comparison, rung.name), "lead"),
        facts([(key.replace("_", " "), str(value)) for key, value in rung.chosen.items()]) if rung.chosen else "",
        *(_by_class(comparison, rung, details, anchor) if comparison.task == "classification" else []),
        _table_or(tables.determinism_table(rung, details), "Determinism: not measured."),
        _prompting(rung, details),
        _folded(tables.seeds_table(rung, metric), "Each seed"),
        _folded(tables.all_metrics_table(rung), "All records of this rung"),
    ]
    return (
        f'<details class="rung {kind}" id="{anchor}"{" open" if kind == "chosen" else ""}>'
        f"<summary><h3>{foreign(rung.name, 160)}</h3> <span>{esc(aside)}</span></summary>{''.join(body)}</details>"
    )


def _by_class(comparison: Comparison, rung: RungResult, details: ClassificationDetails, anchor: str) -> list[str]:
    """What only a classifier has."""
    return [
        figure(
            calibration(rung.name, details, role(comparison, rung.name), f"{anchor}-calibration"),
            "Calibration and risk-coverage: not measured.",
            comparison.command,
        ),
        _confusion(rung, details),
        _table_or(tables.per_class_table(rung, details), "Scores by class: not measured."),
        _table_or(
            tables.group_table(rung, details), "By group: not measured, because no group column was named or kept."
        ),
        _table_or(tables.leaked_table(rung, details), "No test item of this comparison leaked."),
    ]


def _table_or(content: Table | None, absent: str) -> str:
    return table(content) if content else paragraph(absent, "absent")


def _folded(content: Table | None, summary: str) -> str:
    return fold(summary, table(content)) if content else ""


def _confusion(rung: RungResult, details: ClassificationDetails) -> str:
    """The matrix while it can be read, else the pairs that are confused most."""
    if not details.confusion or not details.labels:
        return paragraph("Confusion of classes: not measured.", "absent")
    if len(details.labels) > tables.MATRIX_CLASSES:
        return _table_or(tables.confused_table(rung, details), "No two classes were confused.")
    head = "".join(f'<th scope="col">{foreign(label, 60)}</th>' for label in details.labels)
    body = "".join(_matrix_row(details.labels, row, i) for i, row in enumerate(details.confusion))
    source = f'<span class="source">{esc(f"rungs[{rung.name}].details.confusion")}</span>'
    caption = f"Confusion matrix of {words.short(rung.name)}: rows are the true class, columns the answer"
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{esc(caption)}"><table class="matrix">'
        f'<caption>{esc(caption)} {source}</caption><thead><tr><th scope="col">True class</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _matrix_row(labels: list[str], counts: list[int], row: int) -> str:
    """Counts on a ground as dark as their share of the row; the diagonal is framed."""
    total = sum(counts) or 1
    cells = "".join(
        f'<td class="num{" right" if column == row else ""}" style="--share:{count / total:.3f}">{count:,}</td>'
        for column, count in enumerate(counts)
    )
    return f'<tr><th scope="row">{foreign(labels[row], 60)}</th>{cells}</tr>'


def _prompting(rung: RungResult, details: ClassificationDetails) -> str:
    if details.prompting is None:
        return ""
    shown = "".join(table(content) for content in tables.prompting_tables(rung, details.prompting))
    return facts(tables.prompting_facts(details.prompting)) + shown
