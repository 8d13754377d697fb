"""The figures that compare rungs: paired differences and Pareto plots."""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING

from rung.comparison import report_text as words
from rung.comparison.plot_labels import Box, place_labels
from rung.comparison.plot_style import FONT, INK, MUTED, PAPER, ZONE, Drawing, canvas, inline_svg, role_style
from rung.comparison.report_table import Table, columns
from rung.comparison.result import Comparison, PairResult, RungResult
from rung.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ERROR_TICKS = (
    0.5,
    0.1,
    0.2,
    0.05,
    0.01,
    0.02,
    0.005,
    0.001,
    0.3,
    0.7,
    0.15,
    0.07,
    0.03,
    0.002,
    0.12,
    0.08,
    0.09,
    0.06,
)
_TICK_GAP = 0.07  # ticks closer than this share of the axis would run into each other
_FOREST_MARGINS = 12  # rungs that are worse by more margins than this stand at the edge, as an arrow
_LOG_FROM_RATIO = 4.0  # errors that span less than this are drawn on a linear axis


def role(comparison: Comparison, name: str) -> str:
    """Whether a rung is the chosen small one, the reference, or another."""
    if name == comparison.verdict.chosen:
        return "chosen"
    return "reference" if name == comparison.verdict.reference else "other"


def has_primary(comparison: Comparison, rung: RungResult) -> Record | None:
    """The rung's primary metric, if it was measured."""
    return measured(rung, words.primary_metric(comparison))


def measured(rung: RungResult, name: str) -> Record | None:
    """The record called `name` if the rung has it with a value."""
    return next((record for record in rung.metrics if record.name == name and record.value is not None), None)


# --- paired differences -------------------------------------------------------------------------------------------


def pair_judgement(pair: PairResult) -> str:
    """What the interval says, in two words that need no colour."""
    if pair.superior:
        return "better"
    if pair.non_inferior:
        return "not inferior"
    return "worse by more than the margin" if pair.reference_superior else "not decided"


def forest(comparison: Comparison) -> Drawing | None:
    """Each rung's difference from the reference with its interval; what lies beyond the margin is shaded."""
    pairs = [pair for pair in comparison.pairs if pair.difference.value is not None]
    if not pairs:
        return None
    metric, margin = words.primary_metric(comparison), comparison.verdict.margin
    unit = 100 if words.is_percentage(metric) else 1
    title = f"Difference from {words.clean(comparison.verdict.reference, 80)} on the same test items"
    description = (
        f"Forest plot. Points left of zero are worse than the reference. The margin is "
        f"{words.difference_value(-margin, metric)} {words.difference_unit(metric)}. "
        + "; ".join(f"{words.short(p.rung)} {_difference(p, metric)}: {pair_judgement(p)}" for p in pairs)
        + "."
    )
    with canvas(70 + 27 * len(pairs)) as figure:
        axes = figure.add_subplot()
        low, high = _forest_range(comparison, pairs)
        axes.set_xlim(low * unit, high * unit)
        for row, pair in enumerate(reversed(pairs)):
            _forest_row(axes, comparison, pair, row)
        axes.axvspan(low * unit, -margin * unit, color=ZONE, linewidth=0, zorder=0)
        axes.axvline(0, color=INK, linewidth=1)
        axes.axvline(-margin * unit, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_ylim(-0.6, len(pairs) - 0.1)
        axes.text(-margin * unit, len(pairs) - 0.38, "margin ", ha="right", va="center", fontsize=FONT - 1, color=INK)
        axes.text(0, len(pairs) - 0.38, " no difference", ha="left", va="center", fontsize=FONT - 1, color=MUTED)
        axes.set_yticks(range(len(pairs)), [words.short(pair.rung, 26) for pair in reversed(pairs)], color=INK)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel(f"{words.label(metric)}: rung minus reference, {words.difference_unit(metric)}")
        svg = inline_svg(figure, name="forest", title=title, description=description)
    return Drawing("forest", title, description, svg, (pairs_table(comparison),))


def _ends(pair: PairResult) -> tuple[float, float]:
    """The interval's ends; without an interval the difference itself."""
    value, interval = float(pair.difference.value or 0.0), pair.difference.interval
    return (interval.low, interval.high) if interval else (value, value)


def _forest_range(comparison: Comparison, pairs: list[PairResult]) -> tuple[float, float]:
    """What the axis shows: all that lies near the margin. A hopeless rung far out would squeeze what matters."""
    margin = comparison.verdict.margin
    best = max(pairs, key=lambda pair: float(pair.difference.value or 0.0))
    near = [
        _ends(pair)
        for pair in pairs
        if pair is best or pair.rung == comparison.verdict.chosen or _ends(pair)[0] >= -_FOREST_MARGINS * margin
    ]
    low, high = min(-2.2 * margin, *(end for end, _ in near)), max(1.2 * margin, *(end for _, end in near))
    room = 0.04 * (high - low)
    return low - room, high + room


def _forest_row(axes: Axes, comparison: Comparison, pair: PairResult, row: int) -> None:
    metric = words.primary_metric(comparison)
    unit = 100 if words.is_percentage(metric) else 1
    value = float(pair.difference.value or 0.0) * unit
    colour, marker = role_style(role(comparison, pair.rung))
    left, right = axes.get_xlim()
    low, high = (end * unit for end in _ends(pair))
    if low < high and high > left:
        axes.plot([max(low, left), min(high, right)], [row, row], color=colour, linewidth=2)
    face = colour if pair.non_inferior else PAPER
    if value < left:
        marker, value = "<", left + 0.015 * (right - left)
    axes.plot(
        [value], [row], marker=marker, markersize=7, color=colour, zorder=3, markerfacecolor=face,
        markeredgewidth=1.6, clip_on=False,
    )  # fmt: skip
    axes.text(
        1.015, row, _difference(pair, metric), transform=axes.get_yaxis_transform(), va="center", ha="left",
        fontsize=FONT - 1, color=INK,
    )  # fmt: skip


def _difference(pair: PairResult, metric: str) -> str:
    value = words.difference_value(float(pair.difference.value or 0.0), metric)
    interval = pair.difference.interval
    if interval is None:
        return value
    low, high = (words.difference_value(end, metric) for end in (interval.low, interval.high))
    return f"{value} ({low} to {high})"


def pairs_table(comparison: Comparison) -> Table:
    """All paired results in numbers."""
    metric = words.primary_metric(comparison)
    rows = [
        (
            pair.rung,
            _difference(pair, metric) if pair.difference.value is not None else words.record_value(pair.difference),
            pair_judgement(pair),
            f"{pair.discordant[0]:,} / {pair.discordant[1]:,}",
            words.p_value(pair.mcnemar_p),
            words.p_value(pair.holm_p),
            words.NOT_MEASURED if pair.probability_better is None else f"{pair.probability_better:.2f}",
        )
        for pair in comparison.pairs
    ]
    head = columns(
        "Rung", "#Difference (interval)", "Reading", "#Only it / only the reference right", "#McNemar p", "#After Holm",
        "#P(better)",
    )  # fmt: skip
    reference = words.short(comparison.verdict.reference)
    caption = f"Paired differences from {reference} in {words.difference_unit(metric)}"
    return Table(caption, head, rows, "pairs[]", _marks(comparison, [pair.rung for pair in comparison.pairs]))


def _marks(comparison: Comparison, names: list[str]) -> dict[int, str]:
    roles = {row: role(comparison, name) for row, name in enumerate(names)}
    return {row: found for row, found in roles.items() if found != "other"}


# --- Pareto plots -------------------------------------------------------------------------------------------------


def pareto(comparison: Comparison, key: str, against: str, axis_label: str) -> Drawing | None:
    """Quality against the record `against` (a time, a size, a price), logarithmic; the Pareto set is filled."""
    rungs = [r for r in comparison.rungs if has_primary(comparison, r) and (measured(r, against))]
    rungs = [rung for rung in rungs if float(rung.metric(against).value or 0) > 0]
    if len(rungs) < 2:
        return None
    metric = words.primary_metric(comparison)
    members = list(comparison.pareto.get(key, []))
    left_out = [words.short(r.name) for r in comparison.rungs if r not in rungs]
    title = f"{words.label(metric)} against {words.label(against).lower()}"
    frontier = ", ".join(words.short(name) for name in members) or "none"
    description = (
        f"Scatter plot, logarithmic horizontal axis; up and to the left is better. No other rung is both better and "
        f"cheaper than these (the Pareto set): {frontier}."
        + (f" Not drawn, because not measured: {', '.join(left_out)}." if left_out else "")
    )
    from matplotlib.ticker import FuncFormatter

    with canvas(370) as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        _draw_points(axes, comparison, rungs, set(members), against)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick_words(rungs[0].metric(against), value)))
        axes.set_xlabel(f"{axis_label} (logarithmic; further left is better)")
        axes.set_ylabel(f"{words.label(metric)} (95 % interval)")
        axes.grid(visible=True)
        svg = inline_svg(figure, name=key.replace("_", "-"), title=title, description=description)
    return Drawing(key.replace("_", "-"), title, description, svg, (_pareto_table(comparison, key, against),))


def _tick_words(record: Record, value: float) -> str:
    """A power of ten in the record's unit: `10 ms`, `1 MB`."""
    text = words.record_value(record.model_copy(update={"value": float(value)}))
    return re.sub(r"(\d)\.0+(?=\s|$)", r"\1", text)


def _draw_points(axes: Axes, comparison: Comparison, rungs: list[RungResult], members: set[str], against: str) -> None:
    metric = words.primary_metric(comparison)
    records = [rung.metric(metric) for rung in rungs]
    floor = min((0.5 / record.n for record in records if record.n), default=1e-4)

    def height(quality: float) -> float:
        """Error, kept above nothing so that a perfect score can stand on a logarithmic axis."""
        return max(1.0 - quality, floor)

    xs = [float(rung.metric(against).value or 0) for rung in rungs]
    ys = [height(float(record.value or 0)) for record in records]
    spans = [(height(r.interval.high), height(r.interval.low)) if r.interval else None for r in records]
    _quality_axis(axes, [*ys, *(end for span in spans if span for end in span)], metric)
    axes.set_xlim(min(xs) / 2, max(xs) * 2)
    for rung, x, y, span in zip(rungs, xs, ys, spans, strict=True):
        colour, marker = role_style(role(comparison, rung.name))
        if span:
            axes.plot([x, x], span, color=colour, linewidth=1, alpha=0.55)
        face = colour if rung.name in members else PAPER
        axes.plot(
            [x], [y], marker=marker, markersize=8, color=colour, markerfacecolor=face, markeredgewidth=1.6, zorder=3
        )
    frontier = sorted((x, y) for rung, x, y in zip(rungs, xs, ys, strict=True) if rung.name in members)
    if frontier:
        axes.plot(
            *zip(*frontier, strict=True),
            color=MUTED,
            linewidth=1,
            linestyle=(0, (2, 2)),
            drawstyle="steps-post",
            zorder=1,
        )
    axes.figure.canvas.draw()
    bars = [
        (*axes.transData.transform((x, max(span))), *axes.transData.transform((x, min(span))))
        for x, span in zip(xs, spans, strict=True)
        if span
    ]
    soft: list[Box] = [(x0 - 1, y0, x1 + 1, y1) for x0, y0, x1, y1 in bars]
    for (x0, y0), (x1, y1) in itertools.pairwise(axes.transData.transform(frontier) if frontier else []):
        soft += [(x0, y0 - 2, x1, y0 + 2), (x1 - 2, min(y0, y1), x1 + 2, max(y0, y1))]
    colours = [role_style(role(comparison, rung.name))[0] for rung in rungs]
    place_labels(axes, list(zip(xs, ys, strict=True)), [words.short(r.name, 24) for r in rungs], colours, soft)


def _quality_axis(axes: Axes, errors: list[float], metric: str) -> None:
    """A vertical axis of quality over drawn errors: best on top, logarithmic in the error when errors differ much."""
    low, high = min(errors), max(errors)
    if high / low > _LOG_FROM_RATIO:
        axes.set_yscale("log")
        axes.set_ylim(high * 1.25, low / 1.25)
        ticks = _spaced_ticks(low / 1.25, high * 1.25)
    else:
        room = 0.08 * (high - low) or 0.05
        axes.set_ylim(high + room, low - room)
        ticks = [float(tick) for tick in axes.get_yticks() if low - room <= tick <= high + room]
    decimals = 0 if all(abs(100 * t - round(100 * t)) < 1e-9 for t in ticks) else 1 if min(ticks) >= 0.001 else 2
    names = [words.percent(1 - t, decimals) if words.is_percentage(metric) else f"{1 - t:.3f}" for t in ticks]
    axes.set_yticks(ticks, names)
    axes.minorticks_off()


def _spaced_ticks(low: float, high: float) -> list[float]:
    """Round errors within low..high, the roundest first, that do not crowd on a logarithmic axis."""
    found: list[float] = []
    for tick in _ERROR_TICKS:
        gaps = (abs(math.log(tick / other)) / math.log(high / low) for other in found)
        if low <= tick <= high and all(gap >= _TICK_GAP for gap in gaps):
            found.append(tick)
    return sorted(found)


def _pareto_table(comparison: Comparison, key: str, against: str) -> Table:
    metric = words.primary_metric(comparison)
    members = set(comparison.pareto.get(key, []))
    rows = []
    for rung in comparison.rungs:
        records = {record.name: record for record in rung.metrics}
        rows.append(
            (
                rung.name,
                words.with_interval(records.get(metric)),
                words.record_value(records.get(against)),
                "yes" if rung.name in members else "no",
            )
        )
    head = columns("Rung", f"#{words.label(metric)}", f"#{words.label(against)}", "In the Pareto set")
    caption = f"{words.label(metric)} and {words.label(against).lower()}"
    source = f"rungs[].metrics[{metric}, {against}], pareto.{key}"
    return Table(caption, head, rows, source, _marks(comparison, [rung.name for rung in comparison.rungs]))
