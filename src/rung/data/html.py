"""The visible text of HTML pages."""

from __future__ import annotations

_INVISIBLE = "head, script, style, noscript, template, svg, canvas, iframe, object, select, textarea"
_PARAGRAPHS = (
    "p, div, section, article, header, footer, main, aside, nav, h1, h2, h3, h4, h5, h6, ul, ol, dl, table, "
    "blockquote, pre, figure, hr, form, fieldset, address, details"
)
_LINES = "br, li, dt, dd, tr, summary, figcaption, caption, option"


def html_to_text(html: str) -> str:
    """Return the visible text of a page: blocks are parted by blank lines, white space inside them is collapsed."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(html)
    for node in tree.css(_INVISIBLE):
        node.decompose()
    for node in tree.css("td, th"):
        node.insert_after(" ")
    for selector, border in ((_LINES, "\x1e"), (_PARAGRAPHS, "\x1d")):  # marks that white space collapsing leaves alone
        for node in tree.css(selector):
            node.insert_before(border)
            node.insert_after(border)
    body = tree.body
    raw = body.text(deep=True) if body is not None else ""
    paragraphs = []
    for paragraph in raw.split("\x1d"):
        lines = (" ".join(line.split()) for line in paragraph.split("\x1e"))
        if joined := "\n".join(line for line in lines if line):
            paragraphs.append(joined)
    return "\n\n".join(paragraphs)
