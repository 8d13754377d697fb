"""The figure of one rung: how far its confidence can be trusted, and what it errs on when it may abstain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rung.comparison import report_text as words
from rung.comparison.plot_style import FONT, MUTED, Drawing, canvas, inline_svg, role_style
from rung.comparison.report_details import ClassificationDetails, CoveragePoint, ReliabilityBin
from rung.comparison.report_table import Table, columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TABLE_COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def calibration(name: str, details: ClassificationDetails, role: str, anchor: str) -> Drawing | None:
    """Reliability curve and risk-coverage curve side by side; None when neither was measured."""
    bins = [b for b in details.reliability or [] if b.count and b.accuracy is not None and b.confidence is not None]
    coverage = sorted(details.risk_coverage or [], key=lambda point: point.coverage)
    if not bins and not coverage:
        return None
    title = f"Calibration and risk-coverage of {words.short(name)}"
    description = " ".join([*_reliability_words(bins), *_coverage_words(coverage)])
    with canvas(250) as figure:
        left, right = figure.subplots(1, 2)
        _draw_reliability(left, bins, role)
        _draw_coverage(right, coverage, role)
        svg = inline_svg(figure, name=anchor, title=title, description=description)
    tables = [
        *([_reliability_table(name, bins)] if bins else []),
        *([_coverage_table(name, coverage)] if coverage else []),
    ]
    return Drawing(anchor, title, description, svg, tuple(tables))


def _reliability_words(bins: list[ReliabilityBin]) -> list[str]:
    if not bins:
        return ["The reliability curve was not measured."]
    gap = max(bins, key=lambda b: abs((b.accuracy or 0) - (b.confidence or 0)))
    return [
        f"Left, reliability in {len(bins)} bins: points on the diagonal are as often right as they claim; the largest "
        f"gap is {words.percent(gap.accuracy or 0)} right at a confidence of {words.percent(gap.confidence or 0)}."
    ]


def _coverage_words(coverage: list[CoveragePoint]) -> list[str]:
    if not coverage:
        return ["The risk-coverage curve was not measured."]
    half = min(coverage, key=lambda point: abs(point.coverage - 0.5))
    return [
        f"Right, error among the surest answers: {words.percent(half.risk)} at {words.percent(half.coverage, 0)} "
        f"coverage, {words.percent(coverage[-1].risk)} at {words.percent(coverage[-1].coverage, 0)}."
    ]


def _draw_reliability(axes: Axes, bins: list[ReliabilityBin], role: str) -> None:
    colour, marker = role_style(role)
    axes.set_title("Is it as right as it is sure?")
    if not bins:
        _empty(axes)
        return
    confidence = [float(b.confidence or 0) for b in bins]
    accuracy = [float(b.accuracy or 0) for b in bins]
    low = max(0.0, min(*confidence, *accuracy) - 0.05)
    axes.plot([low, 1], [low, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(confidence, accuracy, color=colour, marker=marker, markersize=5)
    axes.set_xlim(low, 1.01)
    axes.set_ylim(low, 1.01)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share right")
    _percent_axes(axes)


def _draw_coverage(axes: Axes, coverage: list[CoveragePoint], role: str) -> None:
    colour, _ = role_style(role)
    axes.set_title("If it may leave the unsure ones to people")
    if not coverage:
        _empty(axes)
        return
    risks = [point.risk for point in coverage]
    axes.plot([point.coverage for point in coverage], risks, color=colour, drawstyle="steps-post")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, max(*risks, 0.01) * 1.12)
    axes.set_xlabel("share answered by the rung")
    axes.set_ylabel("error among those")
    _percent_axes(axes)


def _percent_axes(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.grid(visible=True)


def _empty(axes: Axes) -> None:
    axes.text(
        0.5, 0.5, words.NOT_MEASURED, ha="center", va="center", transform=axes.transAxes, fontsize=FONT, color=MUTED
    )
    axes.set_xticks([])
    axes.set_yticks([])


def _reliability_table(name: str, bins: list[ReliabilityBin]) -> Table:
    rows = [
        (
            f"{words.percent(b.low)} to {words.percent(b.high)}",
            words.percent(b.confidence or 0),
            words.percent(b.accuracy or 0),
            f"{b.count:,}",
        )
        for b in bins
    ]
    head = columns("Confidence bin", "#Mean confidence", "#Share right", "#Items")
    return Table(f"Reliability of {words.short(name)}", head, rows, f"rungs[{name}].details.reliability")


def _coverage_table(name: str, coverage: list[CoveragePoint]) -> Table:
    """The curve at round coverages: it can have as many points as there are test items."""
    picked = {min(coverage, key=lambda point, at=at: abs(point.coverage - at)) for at in _TABLE_COVERAGES}  # type: ignore[misc]
    rows = [
        (words.percent(point.coverage), words.percent(point.risk)) for point in sorted(picked, key=lambda p: p.coverage)
    ]
    head = columns("Share answered", "#Error among those")
    return Table(f"Risk-coverage of {words.short(name)}", head, rows, f"rungs[{name}].details.risk_coverage")
