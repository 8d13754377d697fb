"""The report of a ladder of language models: report.json for machines, report.md for repositories, report.html."""

from __future__ import annotations

from pathlib import Path

from rung.comparison import report_text as words
from rung.comparison.language_models.plots import curves_figure, ladder_figure, role
from rung.comparison.language_models.result import LanguageLadder, LanguageRungResult
from rung.comparison.report_markdown import bullet_list, escape, markdown_table
from rung.comparison.report_parts import (
    bullets,
    esc,
    facts,
    figure,
    fold,
    foreign,
    heading,
    page,
    paragraph,
    table,
)
from rung.comparison.report_table import Table, columns
from rung.records import Record
from rung.runfolder import write_json, write_text

QUESTION = "Which language model is enough for this text?"
_GAP = "  "


def write_reports(ladder: LanguageLadder, folder: Path) -> Path:
    """Write report.json, report.md and report.html into `folder` and return the path of the page.

    Raises RunFolderError when the disk is full or not writable.
    """
    write_json(folder / "report.json", ladder.model_dump(mode="json"))
    write_text(folder / "report.md", markdown(ladder))
    write_text(folder / "report.html", html_page(ladder))
    return folder / "report.html"


def summary_lines(ladder: LanguageLadder) -> list[str]:
    """The verdict and the ladder as aligned columns, for a terminal."""
    content = ladder_table(ladder)
    rows = [[column.title for column in content.columns], *[list(row) for row in content.rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(content.columns))]
    lines = [ladder.verdict.sentence, ""]
    for row in rows:
        cells = [
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(row, widths, content.columns, strict=True)
        ]
        lines.append(_GAP.join(cells).rstrip())
    return [*lines, "", *(f"{floor.name}: {floor.value:.3f} bits per byte" for floor in ladder.floors)]


def ladder_table(ladder: LanguageLadder) -> Table:
    """All rungs at a glance, from the lowest up."""
    differences = {pair.rung: pair.difference for pair in ladder.pairs}
    rows = []
    for rung in ladder.rungs:
        if not rung.finished:
            rows.append((rung.name, *[words.NOT_MEASURED] * 6, rung.note.splitlines()[0]))
            continue
        rows.append(
            (
                rung.name,
                _bits(rung.metric("bits_per_byte")),
                _difference(differences.get(rung.name)),
                _count(rung.metric("parameters")),
                words.record_value(rung.metric("train_seconds")),
                _megabytes(rung.metric("text_read")),
                _rate(rung.metric("generation_characters_per_second")),
                _marks(ladder, rung.name),
            )
        )
    head = columns(
        "Rung", "#Bits per byte", "#Behind the best", "#Parameters", "#Training", "#Text read", "#Writes", "Marks"
    )
    roles = {row: role(ladder, rung.name) for row, rung in enumerate(ladder.rungs)}
    note = "Intervals at 95 %, over test documents. Writes: characters per second, one text at a time."
    return Table(
        f"The ladder, from counting tokens upwards. {note}",
        head,
        rows,
        "rungs[].metrics, pairs",
        {row: found for row, found in roles.items() if found != "other"},
    )


def html_page(ladder: LanguageLadder) -> str:
    """The whole page."""
    numbers = ladder_table(ladder)
    command = ladder.command
    absent = "Curves: not measured, because no rung was validated on the way."
    curves = "".join(figure(curves_figure(ladder, over), absent, command) for over in ("time", "text"))
    sections = [
        ("ladder", "The ladder at a glance", table(numbers, "ladder") + _ladder_figure(ladder, numbers)),
        ("learning", "Over time and over text", _learning(ladder) + curves),
        ("samples", "What they write", "".join(_samples(rung) for rung in ladder.finished)),
        ("rungs", "Each rung", "".join(_rung(ladder, rung) for rung in ladder.rungs)),
        ("text", "The text", facts(_facts_of_text(ladder))),
        ("missing", "What was not measured", bullets(_missing(ladder))),
        ("repeat", "How to repeat this", _repeat(ladder)),
    ]
    footer = f"Made by Rung {ladder.rung_version} on {ladder.created}. Every number is also in report.json."
    return page(
        ladder.verdict.sentence, _header(ladder), sections, f"<footer>{paragraph(footer)}</footer>", ladder.rung_version
    )


def markdown(ladder: LanguageLadder) -> str:
    """The same story in GitHub's Markdown."""
    blocks = [
        f"# {escape(ladder.verdict.sentence)}",
        f"**{QUESTION}** " + " ".join(escape(reason) for reason in ladder.verdict.reasons),
        escape(_terms(ladder)),
        "## The ladder at a glance",
        markdown_table(ladder_table(ladder)),
        markdown_table(floor_table(ladder)),
        "## Over time and over text",
        bullet_list(escape(sentence) for sentence in ladder.crossings),
        "## What they write",
        *(f"**{rung.name}**: {escape(rung.samples[-1].prompt + rung.samples[-1].text)}" for rung in ladder.finished),
        "## The text",
        bullet_list(f"{name}: {escape(value)}" for name, value in _facts_of_text(ladder)),
        "## What was not measured",
        bullet_list(escape(sentence) for sentence in _missing(ladder)),
        "## How to repeat this",
        f"{escape(ladder.command, 4_000)}",
        "Figures and all records: report.html and report.json beside this file.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def floor_table(ladder: LanguageLadder) -> Table:
    """What general-purpose compressors make of the same text."""
    rows = [(floor.name, _bits(floor)) for floor in ladder.floors]
    return Table("Compressors on the test text alone", columns("Compressor", "#Bits per byte"), rows, "floors")


def _header(ladder: LanguageLadder) -> str:
    best = ladder.result(ladder.verdict.reference)
    enough = ladder.result(ladder.verdict.enough)
    cards = [(f"Enough: {enough.name}", _bits(enough.metric("bits_per_byte")), "bits per byte, 95 % interval")]
    if best is not enough:
        cards.append((f"Best: {best.name}", _bits(best.metric("bits_per_byte")), "bits per byte, 95 % interval"))
    floor = min(ladder.floors, key=lambda record: record.value or 0.0)
    cards.append((f"Compressor: {floor.name}", _bits(floor), "bits per byte of the same text"))
    shown = "".join(
        f"<div><dt>{esc(name)}</dt><dd><strong>{esc(value)}</strong> <span>{esc(detail)}</span></dd></div>"
        for name, value, detail in cards
    )
    return (
        f'<header><p class="question">{esc(QUESTION)} <span class="answer no">{esc(enough.name)}</span></p>'
        f"{heading(ladder.verdict.sentence)}{paragraph(' '.join(ladder.verdict.reasons), 'why')}"
        f'{paragraph(_terms(ladder), "terms")}<dl class="cards">{shown}</dl></header>'
    )


def _terms(ladder: LanguageLadder) -> str:
    settings = ladder.settings
    budget = (
        f"{settings['steps']:,} steps"
        if settings["steps"]
        else "an equal part of the minutes, reading and measuring taken off"
    )
    size = f", and about {settings['parameters']:,} parameters" if settings["parameters"] else ""
    return (
        f"Every network had {budget}{size}; what is counted needs one pass. Bits per byte count every byte of the test "
        f"text, whatever the tokens ({settings['tokenizer']}, the same for all). A rung is enough when it is at most "
        f"{settings['margin']:g} bits per byte worse than the best, with 95 % confidence: that margin was fixed before "
        f"the run."
    )


def _ladder_figure(ladder: LanguageLadder, numbers: Table) -> str:
    return figure(ladder_figure(ladder, numbers), "", ladder.command) + table(floor_table(ladder))


def _learning(ladder: LanguageLadder) -> str:
    legend = (
        "Validation text, on the way. The last part of each line falls because the learning rate does: at another "
        "budget that fall would come earlier or later. A dotted level is a counted model, which needs one pass."
    )
    return paragraph(legend) + bullets(ladder.crossings)


def _samples(rung: LanguageRungResult) -> str:
    shown = "".join(
        f'<p class="text" dir="auto"><strong>{esc(sample.prompt)}</strong>{esc(sample.text, 1_200)}</p>'
        for sample in rung.samples
    )
    return f"<h3>{foreign(rung.name)}</h3>{shown}"


def _rung(ladder: LanguageLadder, rung: LanguageRungResult) -> str:
    if not rung.finished:
        return fold(rung.name, paragraph(f"{rung.description}. Not trained: {rung.note}"))
    records = [
        (found.name.replace("_", " "), words.record_value(found), words.record_interval(found))
        for found in rung.metrics
    ]
    content = (
        paragraph(f"{rung.description}. Kept in {rung.folder}.", "lead")
        + facts([(key.replace("_", " "), str(value)) for key, value in rung.shape.items()])
        + table(Table(f"All records of {rung.name}", columns("Metric", "#Value", "#Interval"), records))
    )
    aside = f"{_bits(rung.metric('bits_per_byte'))} bits per byte {_marks(ladder, rung.name)}".rstrip()
    return fold(f"{rung.name}: {aside}", content)


def _facts_of_text(ladder: LanguageLadder) -> list[tuple[str, str]]:
    told = ladder.text
    parts = [
        (f"{part.capitalize()} text", f"{counts['documents']:,} documents, {words.size(counts['bytes'])}")
        for part, counts in told["parts"].items()
    ]
    return [
        ("Files", ", ".join(told["files"])),
        *parts,
        ("Measured on", f"{words.size(told['measured_bytes'])} of test text, spread evenly"),
        ("SHA-256 of the text", told["sha256"]),
    ]


def _missing(ladder: LanguageLadder) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for rung in ladder.rungs:
        for record in rung.metrics:
            if record.not_measured is not None:
                reasons.setdefault(f"{record.name}: {record.not_measured}", []).append(rung.name)
        if not rung.finished:
            reasons.setdefault(f"not trained: {rung.note.splitlines()[0]}", []).append(rung.name)
    return [f"{reason} ({', '.join(names)})" for reason, names in reasons.items()]


def _repeat(ladder: LanguageLadder) -> str:
    settings = [(key.replace("_", " "), str(value)) for key, value in ladder.settings.items() if value is not None]
    return (
        f'<pre class="command" tabindex="0"><code>{esc(ladder.command, 4_000)}</code></pre>'
        f"{facts([*settings, ('machine', ladder.machine), ('seconds', f'{ladder.seconds:.0f}')])}"
    )


def _marks(ladder: LanguageLadder, name: str) -> str:
    found = ["enough"] if name == ladder.verdict.enough else []
    return "; ".join([*found, *(["best"] if name == ladder.verdict.reference else [])])


def _bits(record: Record) -> str:
    if record.value is None:
        return words.NOT_MEASURED
    spread = record.interval
    return f"{record.value:.3f}" + (f" ({spread.low:.3f} to {spread.high:.3f})" if spread else "")


def _difference(record: Record | None) -> str:
    if record is None or record.value is None:
        return ""
    spread = record.interval
    told = f"{record.value:+.3f}" + (f" ({spread.low:+.3f} to {spread.high:+.3f})" if spread else "")
    return told.replace("-", words.MINUS)


def _count(record: Record) -> str:
    return words.NOT_MEASURED if record.value is None else f"{record.value / 1e6:,.2f} M"


def _megabytes(record: Record) -> str:
    return words.NOT_MEASURED if record.value is None else words.size(record.value)


def _rate(record: Record) -> str:
    return words.NOT_MEASURED if record.value is None else f"{record.value:,.0f}/s"
