"""`rung.prompt_curves`: a model that is prompted, with more and more examples, on labelled data; and its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rung.comparison import report_text as words
from rung.comparison.plot_style import CHOSEN, MUTED, OTHER, REFERENCE, Drawing, canvas, inline_svg
from rung.comparison.report_parts import bullets, facts, figure, heading, page, paragraph, table
from rung.comparison.report_table import Table, columns
from rung.errors import UsageError
from rung.progress import SILENT, Progress
from rung.runfolder import write_json, write_text
from rung.tasks.classification.reading import DataSources, read_task
from rung.tasks.prompting.choosing import variation
from rung.tasks.prompting.costs import Price
from rung.tasks.prompting.curves import CurveWish, Point, PromptCurves, measure_curves
from rung.tasks.prompting.opening import By, open_model
from rung.tasks.run import make_output_folder, require_empty
from rung.version import __version__

FORMAT_VERSION = 1
_STYLES: dict[str, tuple[str, str]] = {
    "pmi": (CHOSEN, "s"),
    "mean": (REFERENCE, "D"),
    "sum": (OTHER, "o"),
    "parsed": (CHOSEN, "s"),
}
_MEANING = {
    "sum": "sum: the log-probability of all tokens of the label",
    "mean": "mean: the same for each token",
    "pmi": 'pmi: less what the label has after the same prompt around "N/A"',
    "parsed": "parsed: the label that the written answer names",
}
_EXPLAINED = (
    "Each point is the mean over templates, draws of examples and test items; nothing was chosen on these items. "
    "Bars are 95 % intervals by the pigeonhole bootstrap (Owen 2007), which draws templates, examples and items anew, "
    "each independently: they say what to expect of another template and other examples, not only of other items."
)


@dataclass(frozen=True)
class PromptReport:
    """The curves, what was asked, and on which data."""

    curves: PromptCurves
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    command: str
    spent: float | None

    def to_json(self) -> dict[str, Any]:
        """The whole of report.json."""
        return {
            "format_version": FORMAT_VERSION,
            "rung_version": __version__,
            "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "command": self.command,
            "model": dict(self.model),
            "data": dict(self.data),
            "spent": self.spent,
            **self.curves.to_json(),
        }


def prompt_curves(
    model: str,
    files: Sequence[Path | str],
    *,
    out: Path,
    target: str | None = None,
    text: Sequence[str] | None = None,
    test: Sequence[Path | str] = (),
    wish: CurveWish | None = None,
    by: By | None = None,
    chat: bool = False,
    bf16: bool = False,
    price: Price | None = None,
    max_cost: float | None = None,
    threads: int = 1,
    command: str = "",
    progress: Progress = SILENT,
) -> PromptReport:
    """Prompt `model` about labelled data with more and more examples, and write report.json and report.html to `out`.

    `model` is an endpoint's URL or a base (`rung.tasks.bases.resolve_base`); `files`, `target`, `text` and `test` are
    those of `rung.compare`: examples come from the training part, questions from the test part.

    Raises UsageError, DataError, RunFolderError, PlanError, and the errors of the model.
    """
    wish = wish or CurveWish()
    require_empty(out)
    sources = DataSources(files, target=target, text_columns=text, test=test)
    task = read_task(sources, seed=wish.seed, threads=threads, progress=progress)
    opened = open_model(
        model,
        label_names=task.label_names,
        by=by,
        chat=chat,
        bf16=bf16,
        price=price,
        max_cost=max_cost,
        say=progress.say,
    )
    questions = task.items["test"]
    if task.leaked is not None:
        questions = questions.take(np.flatnonzero(~task.leaked))
    if not len(questions):
        raise UsageError("there is no test item to ask about", where=str(files[0]))
    curves = measure_curves(
        opened.judge, task.items["train"], questions, wish, progress=progress, count_tokens=opened.count_tokens
    )
    spent = opened.spending.spent if opened.spending is not None and opened.spending.price is not None else None
    report = PromptReport(
        curves, opened.facts, {"files": [str(path) for path in files], "sha256": task.sha256}, command, spent
    )
    make_output_folder(out)
    write_json(out / "report.json", report.to_json())
    write_text(out / "report.html", html_page(report))
    return report


def summary_lines(report: PromptReport) -> list[str]:
    """The table of the curves for a terminal, and what it is to be read against."""
    content = curve_table(report.curves)
    rows = [[column.title for column in content.columns], *[list(row) for row in content.rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(content.columns))]
    lines = [sentence(report), ""]
    for row in rows:
        cells = [
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(row, widths, content.columns, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return [*lines, "", *_costs(report), *_variation_sentences(report.curves)]


def sentence(report: PromptReport) -> str:
    """What examples were worth, in one sentence: the scoring is the one that the first question would be read by."""
    curves = report.curves
    scoring = "pmi" if any(point.scoring == "pmi" for point in curves.points) else "parsed"
    shown = [point for point in curves.points if point.scoring == scoring]
    first, last = shown[0], shown[-1]
    told = f"{report.model['model']} with {_examples(first.shots)}: {_percent(first)} right"
    if last.change is None or last.change_interval is None:
        return f"{told} ({scoring}; even guessing {curves.chance:.1%})."
    low, high = last.change_interval.low, last.change_interval.high
    verdict = "more" if low > 0 else "fewer" if high < 0 else "no clear difference"
    points = f"{100 * last.change:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"{told}; with {_examples(last.shots)}: {_percent(last)}, {verdict} ({points}; {scoring})."


def curve_table(curves: PromptCurves) -> Table:
    """All points, by scoring."""
    rows = [
        (
            f"{point.scoring}, {_examples(point.shots)}",
            f"{100 * point.accuracy:.1f} % ({100 * point.interval.low:.1f} to {100 * point.interval.high:.1f})",
            words.NOT_MEASURED
            if point.change is None or point.change_interval is None
            else f"{100 * point.change:+.1f} ({100 * point.change_interval.low:+.1f} to "
            f"{100 * point.change_interval.high:+.1f})",
            f"{100 * point.failed:.1f} %",
            words.NOT_MEASURED if point.prompt_tokens is None else f"{point.prompt_tokens:,.0f}",
            f"{point.prompts:,}",
        )
        for point in sorted(curves.points, key=lambda point: (list(_STYLES).index(point.scoring), point.shots))
    ]
    titles = ("Read by", "#Accuracy", "#Against the fewest", "#No answer", "#Tokens a question", "#Prompts")
    return Table("Accuracy by number of examples", columns(*titles), rows, "points")


def curve_drawing(curves: PromptCurves) -> Drawing:
    """Accuracy by number of examples, a line for each scoring, with intervals, every single prompt, and chance."""
    title = "Accuracy by number of examples in the prompt"
    scorings = list(dict.fromkeys(point.scoring for point in curves.points))
    description = "Examples on the horizontal axis, accuracy on the vertical one. " + " ".join(
        f"{point.scoring} with {point.shots}: {point.accuracy:.1%}." for point in curves.points
    )
    shots = list(curves.wish.shots)
    with canvas(320) as drawn:
        axes = drawn.subplots()
        for number, scoring in enumerate(scorings):
            colour, marker = _STYLES[scoring]
            shift = 0.12 * (number - (len(scorings) - 1) / 2)
            found = [point for point in curves.points if point.scoring == scoring]
            places = [shots.index(point.shots) + shift for point in found]
            for setting in curves.settings:
                if setting.scoring == scoring:
                    place = shots.index(setting.shots) + shift
                    axes.plot([place], [setting.accuracy], ".", color=colour, alpha=0.25, markersize=5)
            low = [point.accuracy - point.interval.low for point in found]
            high = [point.interval.high - point.accuracy for point in found]
            axes.errorbar(
                places,
                [point.accuracy for point in found],
                yerr=[low, high],
                color=colour,
                marker=marker,
                markersize=5,
                label=scoring,
                capsize=3,
            )
        axes.axhline(curves.majority, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
        axes.text(len(shots) - 0.6, curves.majority, " most frequent label", color=MUTED, va="bottom", ha="right")
        axes.set_xticks(range(len(shots)), [f"{count:,}" for count in shots])
        axes.set_xlabel("examples in the prompt")
        axes.set_ylabel("accuracy")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.grid(visible=True, axis="y")
        if len(scorings) > 1:
            axes.legend(frameon=False)
        svg = inline_svg(drawn, name="prompting-curves", title=title, description=description)
    return Drawing("prompting-curves", title, description, svg, (curve_table(curves), prompt_table(curves)))


def prompt_table(curves: PromptCurves) -> Table:
    """The accuracy of every single prompt."""
    rows = [
        (
            setting.prompt.template.name,
            f"{setting.shots:,}",
            f"{setting.draw + 1}" if setting.shots else "",
            setting.scoring,
            f"{100 * setting.accuracy:.1f} %",
            f"{setting.failed:,}",
        )
        for setting in curves.settings
    ]
    titles = ("Template", "#Examples", "#Draw", "Read by", "#Accuracy", "#No answer")
    return Table("Every prompt", columns(*titles), rows, "settings")


def html_page(report: PromptReport) -> str:
    """The whole page, in the dress of a comparison's."""
    curves = report.curves
    meanings = [_MEANING[name] for name in dict.fromkeys(point.scoring for point in curves.points)]
    pairs = [(name.replace("_", " "), str(value)) for name, value in report.model.items()]
    pairs += [(name, str(value)) for name, value in report.data.items()]
    pairs += [("test items", f"{curves.items:,}"), ("SHA-256 of these", curves.items_sha256)]
    sections = [
        (
            "curves",
            "Examples and accuracy",
            paragraph(_EXPLAINED) + bullets(meanings) + figure(curve_drawing(curves), "", report.command),
        ),
        ("points", "The points", table(curve_table(curves)) + bullets(_variation_sentences(curves))),
        ("cost", "What it took", bullets(_costs(report))),
        ("failures", "Questions without an answer", bullets(curves.failures) or paragraph("There were none.")),
        ("repeat", "How to repeat this", facts([("command", report.command), *pairs])),
    ]
    header = (
        '<header><p class="question">What are examples in the prompt worth?</p>'
        f"{heading(sentence(report))}{paragraph(_against(curves), 'terms')}</header>"
    )
    footer = f"<footer>{paragraph(f'Made by Rung {__version__}. Every number is also in report.json.')}</footer>"
    return page(sentence(report), header, sections, footer, __version__)


def _against(curves: PromptCurves) -> str:
    drawn = f" of {curves.test_items:,}, drawn at random" if curves.items < curves.test_items else ""
    return (
        f"{curves.items:,} test items{drawn}, {len(curves.label_names)} labels. Guessing evenly is right "
        f"{curves.chance:.1%} of the time, the most frequent label of training {curves.majority:.1%}."
    )


def _costs(report: PromptReport) -> list[str]:
    curves = report.curves
    rate = curves.questions / curves.seconds if curves.seconds else 0.0
    told = [
        _against(curves),
        f"{curves.questions:,} questions in {curves.seconds:,.0f} s, {rate:,.1f} a second"
        + " (answers from the cache included).",
    ]
    tokens = "not counted by the server" if curves.prompt_tokens is None else f"{curves.prompt_tokens:,} tokens read"
    written = "" if curves.completion_tokens is None else f", {curves.completion_tokens:,} written"
    shared = (
        "" if "://" in str(report.model["model"]) else " as an endpoint would count them; shared ones are read once"
    )
    spent = "" if report.spent is None else f"; {report.spent:.4g} spent"
    return [*told, f"Tokens: {tokens}{written}{shared}{spent}."]


def _variation_sentences(curves: PromptCurves) -> list[str]:
    """How much templates and draws matter, where there are enough of them."""
    told = []
    for row in variation(curves.settings):
        if row["template_sd"] is None or row["scoring"] not in ("pmi", "parsed"):
            continue
        draws = "" if row["draw_sd"] is None else f", draws of examples {100 * row['draw_sd']:.1f}"
        told.append(
            f"{row['scoring']}, {_examples(row['shots'])}: prompts reach {row['low']:.1%} to {row['high']:.1%}; "
            f"standard deviation between templates {100 * row['template_sd']:.1f} points{draws}."
        )
    return told


def _percent(point: Point) -> str:
    return f"{point.accuracy:.1%}"


def _examples(count: int) -> str:
    return "no example" if count == 0 else "1 example" if count == 1 else f"{count} examples"
