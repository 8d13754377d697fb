"""The learning curves: the metric by number of labels, the fitted law and its band, the break-even."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

from rung.comparison import report_text as words
from rung.comparison.plot_style import FONT, INK, MUTED, Drawing, canvas, inline_svg, role_style
from rung.comparison.plots import role
from rung.comparison.report_table import Table, columns
from rung.comparison.result import Comparison, LearningCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def curves(comparison: Comparison) -> Drawing | None:
    """One panel a rung: the metric by number of labels, the fitted curve with its 90 % band, and the break-even."""
    found = [
        (rung, rung.learning_curve) for rung in comparison.rungs if rung.learning_curve and rung.learning_curve.points
    ]
    if not found:
        return None
    metric = words.primary_metric(comparison)
    title = "How quality grows with the number of labels"
    sentences = [f"{words.short(rung.name)}: {curve.sentence}" for rung, curve in found if curve is not None]
    description = "One panel for each rung, labels on a logarithmic axis. " + " ".join(sentences)
    across = 2 if len(found) in {2, 4} else min(3, len(found))
    down = -(-len(found) // across)
    with canvas(230 * down if across > 1 else 300) as figure:
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        flat = [panel for row in panels for panel in row]
        means = [_mean_curve(curve) for _, curve in found if curve is not None]
        for position, panel in enumerate(flat):
            if position >= len(found):
                panel.set_visible(False)
                continue
            rung, curve = found[position]
            if curve is not None:
                _draw_curve(panel, comparison, rung.name, curve, [m for i, m in enumerate(means) if i != position])
            if position % across == 0:
                panel.set_ylabel(words.label(metric))
            if position >= len(found) - across:
                panel.set_xlabel("labels")
                panel.tick_params(labelbottom=True)
        _curve_axes(flat[0], comparison, [curve for _, curve in found if curve is not None])
        svg = inline_svg(figure, name="learning-curves", title=title, description=description)
    return Drawing("learning-curves", title, description, svg, curve_tables(comparison))


def _mean_curve(curve: LearningCurve) -> tuple[list[int], list[float]]:
    by_size: dict[int, list[float]] = defaultdict(list)
    for point in curve.points:
        by_size[point.items].append(1 - point.error)
    sizes = sorted(by_size)
    return sizes, [statistics.fmean(by_size[size]) for size in sizes]


def _draw_curve(
    panel: Axes, comparison: Comparison, name: str, curve: LearningCurve, others: list[tuple[list[int], list[float]]]
) -> None:
    colour, marker = role_style(role(comparison, name))
    for sizes, values in others:
        panel.plot(sizes, values, color=MUTED, linewidth=0.8, alpha=0.35, zorder=1)
    if curve.fit is not None:
        fit = curve.fit
        panel.fill_between(
            fit.at, [1 - e for e in fit.high], [1 - e for e in fit.low], color=colour, alpha=0.16, linewidth=0
        )
        seen = max(point.items for point in curve.points)
        within = [(n, 1 - e) for n, e in zip(fit.at, fit.fitted, strict=True) if n <= seen]
        beyond = within[-1:] + [(n, 1 - e) for n, e in zip(fit.at, fit.fitted, strict=True) if n > seen]
        for line, style in ((within, "-"), (beyond, (0, (2, 2)))):
            panel.plot([n for n, _ in line], [quality for _, quality in line], color=colour, linestyle=style)
    panel.plot(
        [p.items for p in curve.points], [1 - p.error for p in curve.points], linestyle="", marker=marker,
        markersize=4, color=colour, alpha=0.75, markeredgewidth=0,
    )  # fmt: skip
    if curve.labels_needed is not None:
        panel.axvline(curve.labels_needed, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        panel.text(
            curve.labels_needed, 0.03, f" {curve.labels_needed:,} labels ", transform=panel.get_xaxis_transform(),
            fontsize=FONT - 1.5, color=INK, ha="right", va="bottom",
        )  # fmt: skip
    panel.set_title(words.short(name, 24), fontsize=FONT, color=colour)
    panel.grid(visible=True)


def _curve_axes(panel: Axes, comparison: Comparison, curves_found: list[LearningCurve]) -> None:
    """Sizes on a logarithmic axis with plain numbers; the panels share it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    panel.set_xscale("log")
    sizes = [point.items for curve in curves_found for point in curve.points]
    narrow = max(sizes) / min(sizes) < 30
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=9))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if words.is_percentage(words.primary_metric(comparison)):
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    values = [1 - point.error for curve in curves_found for point in curve.points]
    room = 0.06 * (max(values) - min(values)) or 0.02
    panel.set_ylim(min(values) - room, max(values) + room)


def curve_tables(comparison: Comparison) -> tuple[Table, ...]:
    """Values and break-evens of all learning curves; nothing when there is none."""
    metric = words.primary_metric(comparison)
    shown = [(rung.name, rung.learning_curve) for rung in comparison.rungs if rung.learning_curve]
    if not shown:
        return ()
    sizes = sorted({point.items for _, curve in shown for point in curve.points})
    by_rung = [(name, dict(zip(*_mean_curve(curve), strict=True))) for name, curve in shown]
    rows = [
        (name, *(words.primary_value(mean[n], metric) if n in mean else words.NOT_MEASURED for n in sizes))
        for name, mean in by_rung
    ]
    values = Table(
        f"Mean {words.label(metric)} over seeds by number of labels",
        columns("Rung", *(f"#{n:,}" for n in sizes)), rows, "rungs[].learning_curve.points",
    )  # fmt: skip
    fits = []
    for name, curve in shown:
        interval = curve.labels_needed_interval
        fit = curve.fit
        fits.append(
            (
                name,
                "not seen" if curve.labels_needed is None else f"{curve.labels_needed:,}",
                f"{interval[0]:,} to {interval[1]:,}" if interval else words.NOT_MEASURED,
                f"{fit.floor:.3f} + {words.significant(fit.scale)} · n^(−{fit.power:.2f})" if fit else "no fit",
            )
        )
    head = columns("Rung", "#Labels until not inferior", "#Interval", "Fitted error")
    return values, Table("Break-even and fitted power law", head, fits, "rungs[].learning_curve")
