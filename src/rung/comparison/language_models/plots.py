"""The figures of the ladder of language models: the ladder itself, and bits per byte over time and over text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rung.comparison import report_text as words
from rung.comparison.language_models.result import CurvePoint, LanguageLadder, LanguageRungResult
from rung.comparison.plot_labels import place_labels
from rung.comparison.plot_style import FONT, INK, MUTED, Drawing, canvas, inline_svg, role_style
from rung.comparison.report_table import Table, columns
from rung.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)))
_AXES: dict[str, tuple[str, str, float, Callable[[CurvePoint], float]]] = {
    "time": ("Bits per byte over training time", "minutes of training", 60.0, lambda point: point.seconds),
    "text": ("Bits per byte over text read", "megabytes of text read", 1e6, lambda point: point.text_bytes),
}


def role(ladder: LanguageLadder, name: str) -> str:
    """Whether a rung is the one that is enough, the best, or another."""
    if name == ladder.verdict.enough:
        return "chosen"
    return "reference" if name == ladder.verdict.reference else "other"


def ladder_figure(ladder: LanguageLadder, numbers: Table) -> Drawing:
    """Each rung's bits per byte with its interval, beside the compressors."""
    rungs = list(reversed(ladder.finished))
    title = "Bits per byte of the same test text: fewer is better"
    told = "; ".join(f"{rung.name} {_value(rung):.3f}" for rung in ladder.finished)
    description = f"One row for each rung, the lowest at the top. {told}."
    with canvas(70 + 27 * len(rungs)) as figure:
        axes = figure.add_subplot()
        for row, rung in enumerate(rungs):
            colour, marker = role_style(role(ladder, rung.name))
            record = rung.metric("bits_per_byte")
            if record.interval is not None:
                axes.plot([record.interval.low, record.interval.high], [row, row], color=colour, linewidth=1.6)
            axes.plot(
                [fit.bits_per_byte.value or 0.0 for fit in rung.fits], [row] * len(rung.fits), linestyle="",
                marker=marker, color=colour, markersize=7,
            )  # fmt: skip
        for floor in _near(ladder):
            axes.axvline(floor.value or 0.0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axes.text(
                floor.value or 0.0, len(rungs) - 0.42, f" {floor.name}", fontsize=FONT - 1, color=MUTED, va="center"
            )
        axes.set_ylim(-0.6, len(rungs) - 0.1)
        axes.set_yticks(range(len(rungs)), [rung.name for rung in rungs], color=INK)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("bits per byte")
        svg = inline_svg(figure, name="ladder-figure", title=title, description=description)
    return Drawing("ladder-figure", title, description, svg, (numbers,))


def curves_figure(ladder: LanguageLadder, over: str) -> Drawing | None:
    """Validation bits per byte of every rung over "time" or "text"; None where nothing was validated on the way."""
    title, axis, unit, place = _AXES[over]
    shown = [(rung, _best_curve(rung)) for rung in ladder.finished]
    if not any(len(curve) > 1 for _, curve in shown):
        return None
    description = "One line for each rung. " + " ".join(
        f"{rung.name} ends at {curve[-1].bits_per_byte:.3f}." for rung, curve in shown
    )
    with canvas(360) as figure:
        axes = figure.add_subplot()
        ends, names, colours = [], [], []
        lines = 0
        for rung, curve in shown:
            colour, marker = role_style(role(ladder, rung.name))
            at = [place(point) / unit for point in curve]
            values = [point.bits_per_byte for point in curve]
            if len(curve) == 1:
                axes.axhline(values[0], color=colour, linewidth=0.9, linestyle=(0, (1, 2)))
                axes.plot(at, values, linestyle="", marker=marker, color=colour)
            else:
                axes.plot(at, values, color=colour, linestyle=_DASHES[lines % len(_DASHES)])
                lines += 1
            ends.append((at[-1], values[-1]))
            names.append(rung.name)
            colours.append(colour)
        _limit(axes, [curve for _, curve in shown])
        axes.set_xlabel(axis)
        axes.set_ylabel("bits per byte, validation text")
        axes.grid(visible=True)
        place_labels(axes, ends, names, colours)
        svg = inline_svg(figure, name=f"curves-{over}", title=title, description=description)
    return Drawing(f"curves-{over}", title, description, svg, (_numbers(shown, over),))


def _limit(axes: Axes, curves: Sequence[Sequence[CurvePoint]]) -> None:
    """Leave out the first steep fall: what happens above the worst rung's middle would squeeze all the rest."""
    values = [point.bits_per_byte for curve in curves for point in curve]
    halfway = [curve[len(curve) // 4].bits_per_byte for curve in curves]
    low, high = min(values), max(*halfway, *(curve[-1].bits_per_byte for curve in curves))
    axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def _numbers(shown: Sequence[tuple[LanguageRungResult, Sequence[CurvePoint]]], over: str) -> Table:
    _, axis, unit, place = _AXES[over]
    rows = [
        (rung.name, words.significant(place(point) / unit), f"{point.bits_per_byte:.4f}")
        for rung, curve in shown
        for point in curve
    ]
    head = columns("Rung", f"#{axis[0].upper()}{axis[1:]}", "#Bits per byte")
    return Table(f"Validations over {over}", head, rows, "rungs[].fits[].curve")


def _best_curve(rung: LanguageRungResult) -> list[CurvePoint]:
    return min(rung.fits, key=lambda fit: fit.valid_bits_per_byte).curve


def _value(rung: LanguageRungResult) -> float:
    return rung.metric("bits_per_byte").value or 0.0


def _near(ladder: LanguageLadder) -> list[Record]:
    """Compressors that are not so far off that the rungs would be squeezed."""
    values = [_value(rung) for rung in ladder.finished]
    room = 1.5 * (max(values) - min(values))
    return [floor for floor in ladder.floors if floor.value is not None and floor.value <= max(values) + room]
