"""How the report's figures look, and how a matplotlib figure becomes inline SVG.

Colours are written as CSS variables, so one drawing serves light, dark and print; text stays text. The same figure
gives the same bytes: fixed salt for ids, no date. Ids get a prefix, because many drawings share one page.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rung.comparison.report_table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 640  # CSS pixels at natural size; one point of matplotlib is one pixel there
FONT = 11.5

# Each colour doubles as the name of a CSS variable: no two may be equal.
INK, MUTED, GRID = "#1b2026", "#59626c", "#d8dce1"
CHOSEN, REFERENCE, OTHER = "#0a6b62", "#a8480f", "#66707b"
ZONE, PAPER = "#f3e3d8", "#fffffe"
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    CHOSEN: "--chosen",
    REFERENCE: "--reference",
    OTHER: "--other",
    ZONE: "--zone",
    PAPER: "--paper",
}
_ROLES = {"chosen": (CHOSEN, "s"), "reference": (REFERENCE, "D"), "other": (OTHER, "o")}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rung",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same measure of text on every machine
    "font.size": FONT,
    "axes.labelsize": FONT,
    "axes.titlesize": FONT,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.labelsize": FONT - 1,
    "ytick.labelsize": FONT - 1,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.linewidth": 1.6,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Drawing:
    """A figure of the report: inline SVG, a title, a description for those who do not see it, and its numbers."""

    name: str
    title: str
    description: str
    svg: str
    tables: tuple[Table, ...]


def role_style(role: str) -> tuple[str, str]:
    """Colour and marker of a rung's role: chosen, reference or other. The marker tells it without the colour."""
    return _ROLES[role]


@contextmanager
def canvas(height: float) -> Iterator[Figure]:
    """A figure of the report's width and style, `height` pixels high. No display, no global state of pyplot."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc must not change the report
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def inline_svg(figure: Figure, *, name: str, title: str, description: str) -> str:
    """The figure as an `<svg role="img">` for use inside HTML."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", svg).replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    box = re.search(r'viewBox="[^"]*"', svg)
    body = svg[svg.index(">") + 1 :]
    opening = (
        f'<svg {box.group(0) if box else ""} role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-desc">{html.escape(description)}</desc>'
    )
    return opening + body.strip()
