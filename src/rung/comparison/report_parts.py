"""Small pieces of HTML: escaped text, tables, figures, lists of facts. Nothing unescaped leaves this module."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib import resources

from rung.comparison import report_text as words
from rung.comparison.plot_style import Drawing
from rung.comparison.report_table import Column, Table

# The page promises to fetch nothing; this makes the browser hold it to that, and forbids any script.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_LONG_SENTENCE = 110  # characters; longer verdicts are set smaller


def page(title: str, header: str, sections: Sequence[tuple[str, str, str]], footer: str, version: str) -> str:
    """A whole page around finished HTML; `sections` are (anchor, title, content)."""
    contents = "".join(f'<li><a href="#{anchor}">{esc(name)}</a></li>' for anchor, name, _ in sections)
    body = "".join(
        f'<section id="{anchor}" aria-labelledby="{anchor}-heading"><h2 id="{anchor}-heading">{esc(name)}</h2>'
        f"{content}</section>"
        for anchor, name, content in sections
    )
    style = resources.files("rung.comparison").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f'<meta name="generator" content="Rung {esc(version)}"><link rel="icon" href="data:,">'
        f"<title>{esc(title, 200)}</title><style>\n{style}</style></head><body>"
        f'<a class="skip" href="#main">Skip to the report</a>{header}'
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav><main id="main">{body}</main>{footer}'
        "</body></html>\n"
    )


def heading(sentence: str) -> str:
    """The verdict as the page's first heading."""
    long = ' class="long"' if len(sentence) > _LONG_SENTENCE else ""
    return f"<h1{long}>{esc(sentence, 2_000)}</h1>"


def esc(text: str, limit: int = words.TEXT_LIMIT) -> str:
    """Text made harmless for HTML, as content or attribute; deceiving characters written out, long texts cut."""
    return html.escape(words.clean(text, limit)).replace(" %", "\N{NO-BREAK SPACE}%")


def foreign(text: str, limit: int = words.TEXT_LIMIT) -> str:
    """Text of the user's data: harmless, and its writing direction kept from what stands around it."""
    return f"<bdi>{esc(text, limit)}</bdi>"


def paragraph(text: str, css: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{_class(css)}>{esc(text)}</p>"


def bullets(sentences: Iterable[str]) -> str:
    """A list of plain sentences, or nothing."""
    items = "".join(f"<li>{esc(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A description list."""
    rows = "".join(f"<div><dt>{esc(name)}</dt><dd>{foreign(value, 2_000)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{rows}</dl>'


def table(content: Table, css: str = "") -> str:
    """A table with caption and headings for both directions, in a frame that scrolls on its own when it is wide."""
    head = "".join(f'<th scope="col"{_class("num" if c.numeric else "")}>{esc(c.title)}</th>' for c in content.columns)
    marked = content.marked or {}
    body = "".join(_row(row, content.columns, marked.get(i, "")) for i, row in enumerate(content.rows))
    source = f' <span class="source">{esc(content.source)}</span>' if content.source else ""
    name = esc(content.caption, 200)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{name}"><table{_class(css)}>'
        f"<caption>{esc(content.caption)}{source}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        "</table></div>"
    )


def _row(row: Sequence[str], columns: Sequence[Column], css: str) -> str:
    cells = [f'<th scope="row">{foreign(row[0], 160)}</th>']
    for cell, column in zip(row[1:], columns[1:], strict=True):
        names = ["num" if column.numeric else "", "absent" if cell == words.NOT_MEASURED else ""]
        cells.append(
            f"<td{_class(' '.join(filter(None, names)))}>{_number(cell) if column.numeric else foreign(cell, 400)}</td>"
        )
    return f"<tr{_class(css)}>{''.join(cells)}</tr>"


def _number(cell: str) -> str:
    """A number, its interval (in brackets) in smaller type on a line of its own."""
    value, bracket, interval = cell.partition(" (")
    return esc(value) + (f' <span class="interval">({esc(interval)}</span>' if bracket else "")


def fold(summary: str, content: str, *, unfolded: bool = False, css: str = "") -> str:
    """Content behind a summary line that keyboard and screen reader can open."""
    return f"<details{_class(css)}{' open' if unfolded else ''}><summary>{esc(summary)}</summary>{content}</details>"


def figure(drawing: Drawing | None, absent: str, command: str) -> str:
    """A drawing with caption and, folded, its numbers and the command behind them; or a sentence why there is none."""
    if drawing is None:
        return paragraph(absent, "absent")
    tables = "".join(table(numbers) for numbers in drawing.tables)
    behind = f'<p class="source">Made by <code>{esc(command)}</code></p>'
    name = esc(drawing.title, 200)
    return (
        f'<figure id="figure-{drawing.name}"><div class="scroll picture" role="region" tabindex="0" '
        f'aria-label="Figure: {name}">{drawing.svg}</div><figcaption>{esc(drawing.title)}</figcaption>'
        f"{fold('The numbers in this figure', tables + behind, css='numbers')}</figure>"
    )


def _class(css: str) -> str:
    return f' class="{css}"' if css else ""
