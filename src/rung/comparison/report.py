"""Write a comparison down: report.json for machines, report.md for repositories, report.html for everyone else."""

from __future__ import annotations

from pathlib import Path

from rung.comparison import report_tables as tables
from rung.comparison import report_text as words
from rung.comparison.report_html import html_page
from rung.comparison.report_markdown import markdown
from rung.comparison.result import Comparison
from rung.runfolder import write_json, write_text

_GAP = "  "
_WIDEST_NAME = 30
_NOT_IN_TERMINALS = {"Macro-F1"}  # a line has 100 to 120 columns; the report has them all


def write_reports(comparison: Comparison, folder: Path) -> Path:
    """Write report.json, report.md and report.html into `folder` and return the path of the page.

    report.json comes first: should drawing fail, no number is lost. Raises RunFolderError when the disk is full or
    not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", comparison.model_dump(mode="json"))
    write_text(folder / "report.md", markdown(comparison))
    page = folder / "report.html"
    write_text(page, html_page(comparison))
    return page


def summary_lines(comparison: Comparison, page: Path | None = None) -> list[str]:
    """The verdict, the ladder as aligned columns and where the page lies, for a terminal without markup."""
    table = tables.ladder_table(comparison)
    shown = [at for at, column in enumerate(table.columns) if column.title not in _NOT_IN_TERMINALS]
    shown_columns = [table.columns[at] for at in shown]
    rows = [[column.title for column in shown_columns]]
    rows += [[words.short(row[at], _WIDEST_NAME) if at == 0 else row[at] for at in shown] for row in table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(shown))]
    lines = [comparison.verdict.sentence, ""]
    for row in rows:
        cells = [
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(row, widths, shown_columns, strict=True)
        ]
        lines.append(_GAP.join(cells).rstrip())
    return [*lines, *(["", f"Report: {page}"] if page else [])]
