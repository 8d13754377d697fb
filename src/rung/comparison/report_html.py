"""The report as one HTML page: no script, nothing fetched, readable on paper, in the dark and by ear."""

from __future__ import annotations

from rung.comparison import plots
from rung.comparison import report_story as story
from rung.comparison import report_tables as tables
from rung.comparison import report_text as words
from rung.comparison.plots_curves import curves
from rung.comparison.report_html_rung import rung_section
from rung.comparison.report_parts import bullets, esc, facts, figure, fold, foreign, heading, page, paragraph, table
from rung.comparison.result import Comparison, Disagreement

_SECTIONS = (
    ("ladder", "The ladder at a glance"),
    ("differences", "How far from the reference"),
    ("trade-offs", "What quality costs"),
    ("labels", "How many labels it takes"),
    ("data", "The data"),
    ("rungs", "Each rung"),
    ("disagreements", "Where small and large disagree"),
    ("missing", "What was not measured"),
    ("repeat", "How to repeat this"),
)


def html_page(comparison: Comparison) -> str:
    """The whole page."""
    parts = {
        "ladder": _ladder, "differences": _differences, "trade-offs": _trade_offs, "labels": _labels, "data": _data,
        "rungs": _rungs, "disagreements": _disagreements, "missing": _missing, "repeat": _repeat,
    }  # fmt: skip
    sections = [(anchor, title, parts[anchor](comparison)) for anchor, title in _SECTIONS]
    return page(
        comparison.verdict.sentence, _header(comparison), sections, _footer(comparison), comparison.rung_version
    )


def _header(comparison: Comparison) -> str:
    verdict = comparison.verdict
    cards = "".join(
        f"<div><dt>{foreign(figure.name, 80)}</dt><dd><strong>{esc(figure.value)}</strong> "
        f"<span>{esc(figure.detail)}</span></dd></div>"
        for figure in story.key_figures(comparison)
    )
    css = verdict.answer.replace(" ", "-")
    figures = f'<dl class="cards">{cards}</dl>' if cards else ""
    return (
        f'<header><p class="question">{esc(story.question(comparison))} '
        f'<span class="answer {css}">{esc(words.answer_words(verdict.answer))}</span></p>'
        f"{heading(verdict.sentence)}{paragraph(' '.join(verdict.reasons), 'why')}"
        f"{paragraph(story.terms(comparison), 'terms')}"
        f"{figures}</header>"
    )


def _ladder(comparison: Comparison) -> str:
    return table(tables.ladder_table(comparison), "ladder")


def _differences(comparison: Comparison) -> str:
    legend = (
        "A filled mark is not inferior: its whole interval lies right of the margin. A square is the best small rung, "
        "an arrow at the edge a rung further left than the axis reaches. "
        "P-values are exact McNemar tests, corrected by Holm for the number of rungs."
    )
    absent = "Paired differences: not measured, because fewer than two rungs gave predictions."
    return paragraph(legend) + figure(plots.forest(comparison), absent, comparison.command)


def _trade_offs(comparison: Comparison) -> str:
    legend = (
        "Filled marks are the Pareto set: no other rung is both better and cheaper. The square is the best small rung, "
        "the diamond the reference. No score weighs one against the other: that choice is yours."
    )
    shown = [
        ("quality_latency", "latency_batch1_p50", "median latency for one text, seconds"),
        ("quality_size", "bytes_on_disk", "bytes on disk"),
        ("quality_cost", "cost_per_1000", "cost per 1,000 texts"),
    ]
    drawn = []
    for key, record, axis in shown:
        drawing = plots.pareto(comparison, key, record, axis)
        if drawing is not None or key != "quality_cost":
            absent = f"Quality against {words.label(record).lower()}: measured for fewer than two rungs."
            drawn.append(figure(drawing, absent, comparison.command))
    return paragraph(legend) + "".join(drawn)


def _labels(comparison: Comparison) -> str:
    sentences = [
        f"{rung.name}: {rung.learning_curve.sentence}" for rung in comparison.rungs if rung.learning_curve is not None
    ]
    drawing = curves(comparison)
    legend = (
        "Each point is one fit on so many labels; the line is a fitted power law with its 90 % band, dotted beyond "
        "the data at hand. The dashed line is the break-even. Thin lines are the other rungs."
    )
    told = paragraph(legend) + bullets(sentences) if drawing else ""
    return told + figure(drawing, "Learning curves: not measured.", comparison.command)


def _data(comparison: Comparison) -> str:
    data = comparison.data
    examples = "".join(
        f"<h4>{esc(str(gate['name']))}</h4><ul>"
        + "".join(f"<li>{foreign(str(e))}</li>" for e in gate["examples"])
        + "</ul>"
        for gate in data.gates
        if gate.get("examples")
    )
    return (
        f'<p class="power"><strong>What this test set can decide.</strong> '
        f"{esc(str(data.power.get('sentence', words.NOT_MEASURED)))}</p>"
        f"{facts(tables.facts_of_data(comparison))}"
        f"{'<h3>Profile</h3>' + bullets(data.profile) if data.profile else ''}"
        f"{'<h3>What was guessed</h3>' + bullets(data.guessed) if data.guessed else ''}"
        f"<h3>Gates</h3>{table(tables.gate_table(comparison))}"
        f"{fold('Examples of what the gates found', examples) if examples else ''}"
        f"{'<h3>Classes</h3>' + table(tables.class_table(comparison)) if data.classes else ''}"
    )


def _rungs(comparison: Comparison) -> str:
    order = sorted(comparison.rungs, key=lambda rung: rung.height)
    return "".join(rung_section(comparison, rung, position) for position, rung in enumerate(order))


def _disagreements(comparison: Comparison) -> str:
    found = comparison.disagreements
    if not found:
        return paragraph(
            "There is no test item on which the best small rung and the reference differ, or none was kept."
        )
    verdict = comparison.verdict
    shown = found[: tables.DISAGREEMENTS_SHOWN]
    told = (
        f"{len(found):,} test items on which {words.clean(verdict.chosen or 'the small rung', 80)} and "
        f"{words.clean(verdict.reference, 80)} differ were kept. Long texts are cut, and say so."
    )
    marked = comparison.task == "classification"  # a text of one's own words is neither right nor wrong
    if marked:
        small_right = sum(item.small == item.label for item in found)
        large_right = sum(item.reference == item.label for item in found)
        told += f" The small rung is right on {small_right:,} of them, the reference on {large_right:,}."
    items = "".join(_disagreement(item, marked=marked) for item in shown)
    return paragraph(told) + fold(f"Show the first {len(shown)}", f'<ol class="items">{items}</ol>')


def _disagreement(item: Disagreement, *, marked: bool) -> str:
    def answer(who: str, said: str) -> str:
        if not marked:
            return f"<div><dt>{who}</dt><dd>{foreign(said, 400)}</dd></div>"
        right = said == item.label
        return (
            f'<div class="{"right" if right else "wrong"}"><dt>{who}</dt>'
            f"<dd>{foreign(said, 160)} <span>{'right' if right else 'wrong'}</span></dd></div>"
        )

    wanted = "True label" if marked else "Wanted"
    return (
        f'<li><p class="text" dir="auto">{esc(item.text)}</p><dl><div><dt>{wanted}</dt>'
        f"<dd>{foreign(item.label, 400)}</dd></div>{answer('Small', item.small)}{answer('Reference', item.reference)}"
        "</dl></li>"
    )


def _missing(comparison: Comparison) -> str:
    records = tables.missing_table(comparison)
    if not comparison.not_measured and records is None:
        return paragraph("Everything that this report speaks of was measured.")
    return bullets(comparison.not_measured) + (table(records) if records else "")


def _repeat(comparison: Comparison) -> str:
    shown = tables.facts_to_repeat(comparison)
    told = "The same seed and plan give the same report.json apart from the fields that measure time, memory or energy:"
    return (
        f'<pre class="command" tabindex="0"><code>{esc(comparison.command, 4_000)}</code></pre>{facts(shown[1:])}'
        f"{paragraph(told)}"
        f"{bullets(comparison.measured_fields)}"
    )


def _footer(comparison: Comparison) -> str:
    told = f"Made by Rung {comparison.rung_version} on {comparison.created}. Every number is also in report.json."
    return f"<footer>{paragraph(told)}</footer>"
