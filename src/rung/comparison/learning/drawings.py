"""The figures of the learning page: curves of whole runs, of their layers, and of how far gradients reach back.

Runs differ by colour and dash, layers by shade: pale at the input, strong at the output, with names at the lines' ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rung.comparison import report_text as words
from rung.comparison.learning.reading import Learning
from rung.comparison.plot_style import FONT, INK, MUTED, Drawing, canvas, inline_svg
from rung.comparison.report_table import Table, columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Placeholders that become CSS variables of report.css; no two equal, and none equal to one of plot_style's.
_RUNS = ("#0b62a4", "#b3470d", "#24752e", "#7a3e9d", "#9c2255", "#5c5c00")
_SHADES = ("#9ab8cf", "#7ba3c2", "#5b8db4", "#3f76a2", "#285e8a", "#15476f")
_VARIABLES = {colour: f"--run-{n}" for n, colour in enumerate(_RUNS, 1)} | {
    shade: f"--depth-{n}" for n, shade in enumerate(_SHADES, 1)
}
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)))
_MOST_POINTS = 400  # a line of more is thinned: the page stays small, and pixels are no finer
_MOST_LABELS = 7
_LINE_GAP = 12.0  # pixels between names
_NARROW = 50.0  # a logarithmic axis that spans less gets ticks between the powers of ten
_USUAL_UPDATE = 1e-3

Points = Sequence[tuple[float, float]]
_End = tuple[str, tuple[float, float]]  # a layer and the last point of its line


def losses(runs: Sequence[Learning]) -> Drawing | None:
    """Training loss of all runs (thin) with validations (marks)."""
    unit = "bits_per_byte" if all(run.unit == "bits_per_byte" for run in runs) else "loss"
    name = "bits per byte" if unit == "bits_per_byte" else "loss"
    label = "bits per byte" if unit == "bits_per_byte" else "loss, nats per target"

    def draw(axes: Axes) -> None:
        for number, run in enumerate(runs):
            _line(axes, _thinned(_of_steps(run, unit)), number, label=run.name)
            if run.validations and run.unit == unit:
                axes.plot(
                    *zip(*run.validations, strict=True), color=_RUNS[number % len(_RUNS)], marker="o", markersize=4,
                    linestyle="", label=f"{run.name}, held-out",
                )  # fmt: skip

    rows = [
        (
            run.name,
            f"{run.steps[-1]['step']:,}",
            words.significant(run.steps[0][unit], 4),
            words.significant(run.steps[-1][unit], 4),
            words.significant(min(v for _, v in run.validations), 4) if run.validations else words.NOT_MEASURED,
        )
        for run in runs
    ]
    head = columns("Run", "#Steps", "#First", "#Last", "#Best held-out")
    return _overlaid(
        "losses", f"{name.capitalize()} while training", "loss falls from left to right", draw,
        ylabel=label, table=Table(f"Training: {label}", head, rows, "metrics.jsonl"),
    )  # fmt: skip


def rates(runs: Sequence[Learning]) -> Drawing | None:
    """The learning rate, or the schedule's factor where the rate is not known."""
    known = all(run.learning_rate for run in runs)

    def points(run: Learning) -> Points:
        scale = (run.learning_rate or 1.0) if known else 1.0
        return [(step, scale * factor) for step, factor in _of_steps(run, "learning_rate_factor")]

    def draw(axes: Axes) -> None:
        for number, run in enumerate(runs):
            _line(axes, _thinned(points(run)), number, label=run.name)
        axes.set_ylim(bottom=0)

    rows = [
        (run.name, run.optimizer or words.NOT_MEASURED, words.significant(max(value for _, value in points(run))))
        for run in runs
    ]
    title = "Learning rate" if known else "Learning rate as a share of the highest"
    table = Table(title, columns("Run", "Optimiser", "#Highest"), rows, "metrics.jsonl, rung.json")
    return _overlaid("rates", title, "the schedule of each run", draw, ylabel=title.lower(), table=table)


def gradient_norms(runs: Sequence[Learning]) -> Drawing | None:
    """The norm of the whole gradient, before clipping."""

    def draw(axes: Axes) -> None:
        for number, run in enumerate(runs):
            _line(axes, _thinned(_of_steps(run, "gradient_norm")), number, label=run.name)
        _logarithmic(axes, (value for run in runs for _, value in _of_steps(run, "gradient_norm")))

    rows = []
    for run in runs:
        values = sorted(value for _, value in _of_steps(run, "gradient_norm"))
        rows.append((run.name, *(words.significant(v) for v in (values[len(values) // 2], values[-1]))))
    table = Table("Gradient norm, before clipping", columns("Run", "#Median", "#Largest"), rows, "metrics.jsonl")
    return _overlaid(
        "gradient-norms", "Norm of the whole gradient", "one line a run, logarithmic", draw,
        ylabel="gradient norm", table=table,
    )  # fmt: skip


def of_layers(runs: Sequence[Learning], statistic: str, title: str, *, percent: bool = False) -> Drawing | None:
    """One statistic of each layer over the steps, a panel a run; runs in which it is nowhere above zero have none."""
    shown = [run for run in runs if any(value > 0 for layer in run.layers for _, value in run.series(layer, statistic))]
    if not shown:
        return None
    across = min(2, len(shown))
    down = -(-len(shown) // across)
    description = (
        f"{title}: a panel for each run, a line for each layer, from pale at the input to strong at the output."
    )
    name = statistic.replace("_", "-")
    with canvas(40 + 270 * down) as figure:
        panels = figure.subplots(down, across, sharey=True, squeeze=False)
        flat = [panel for row in panels for panel in row]
        for panel in flat[len(shown) :]:
            panel.set_visible(False)
        ends = []
        for position, run in enumerate(shown):
            panel = flat[position]
            lines = [(layer, run.series(layer, statistic)) for layer in run.layers]
            drawn = _layer_panel(panel, [(layer, points) for layer, points in lines if points], percent=percent)
            ends.append((panel, drawn))
            if not percent:
                _logarithmic(
                    panel, (v for one in shown for layer in one.layers for _, v in one.series(layer, statistic))
                )
            panel.set_title(words.short(run.name, 34), fontsize=FONT)
            if position >= len(shown) - across:
                panel.set_xlabel("step")
            if statistic == "update_ratio":
                panel.axhline(_USUAL_UPDATE, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        _label_ends(figure, ends)
        svg = _svg(figure, name, title, description)
    return Drawing(name, title, description, svg, tuple(_layer_table(run, statistic, title) for run in shown))


def reach_curves(runs: Sequence[Learning]) -> Drawing | None:
    """How much of the last step's gradient is left, by steps back, at the median look while learning."""
    shown = [run for run in runs if run.reaches()]
    if not shown:
        return None
    floor = 1e-5
    shares = [0.01]

    def draw(axes: Axes) -> None:
        for number, run in enumerate(shown):
            reaches = sorted(run.reaches_while_learning(), key=lambda reach: reach.steps)
            reach = reaches[len(reaches) // 2]
            points = [(distance, max(share, floor)) for distance, share in reach.curve]
            shares.extend(share for _, share in points)
            reached = f"{reach.steps}" if reach.steps < reach.longest else f"all {reach.longest}"
            _line(axes, points, number, label=f"{run.name}: {reached} steps")
        axes.axhline(0.01, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(0, 0.0115, "1 %", fontsize=FONT - 1, color=MUTED, va="bottom")
        _logarithmic(axes, shares)

    rows = []
    for run in shown:
        looks = [reach for _, reach in run.reaches()]
        learning = sorted(reach.steps for reach in run.reaches_while_learning())
        middle = learning[len(learning) // 2]
        rows.append(
            (run.name, f"{looks[0].steps:,}", f"{middle:,}", f"{looks[-1].steps:,}", f"{looks[-1].longest:,}")
        )  # fmt: skip
    head = columns("Run", "#At the first look", "#While learning, median", "#At the last look", "#Longest possible")
    caption = "Steps back until the gradient is below 1 %"
    table = Table(caption, head, rows, "metrics.jsonl, vital_signs.gradient_reach")
    return _overlaid(
        "gradient-reach", "How far back the gradient reaches", "a steep fall is a vanishing gradient", draw,
        ylabel="share of the last step's gradient", xlabel="steps back", table=table,
    )  # fmt: skip


def reach_over_time(runs: Sequence[Learning]) -> Drawing | None:
    """How far back the gradient reached at each look."""
    shown = [run for run in runs if len(run.reaches()) > 1]
    if not shown:
        return None

    def draw(axes: Axes) -> None:
        for number, run in enumerate(shown):
            points = [(step, reach.steps) for step, reach in run.reaches()]
            _line(axes, points, number, label=run.name, marker="o")
        axes.set_ylim(bottom=0)

    rows = [(run.name, ", ".join(f"{step:,}: {reach.steps}" for step, reach in run.reaches())) for run in shown]
    return _overlaid(
        "reach-over-time", "Gradient reach while training", "steps back until the gradient is below 1 %", draw,
        ylabel="steps back", table=Table("Reach by step", columns("Run", "Step: reach"), rows, "metrics.jsonl"),
    )  # fmt: skip


# --- parts ------------------------------------------------------------------------------------------------------------


def _of_steps(run: Learning, key: str) -> list[tuple[float, float]]:
    return [(line["step"], line[key]) for line in run.steps if key in line]


def _thinned(points: Points) -> Points:
    """At most `_MOST_POINTS` of the points, the last among them."""
    every = -(-len(points) // _MOST_POINTS)
    return [*points[:-1:every], *points[-1:]]


def _line(axes: Axes, points: Points, number: int, *, label: str, marker: str = "") -> None:
    colour, dashes = _RUNS[number % len(_RUNS)], _DASHES[number % len(_DASHES)]
    axes.plot(
        [x for x, _ in points], [y for _, y in points], color=colour, linestyle=dashes, linewidth=1.6,
        label=words.short(label, 48), marker=marker, markersize=3,
    )  # fmt: skip


def _overlaid(
    name: str, title: str, told: str, draw: Callable[[Axes], None], *, ylabel: str, table: Table, xlabel: str = "step"
) -> Drawing | None:
    """One pair of axes for all runs, with a legend."""
    description = f"{title}: {told}."
    with canvas(300) as figure:
        axes = figure.add_subplot()
        draw(axes)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(visible=True)
        axes.legend(frameon=False, fontsize=FONT - 1, labelcolor=INK)
        svg = _svg(figure, name, title, description)
    return Drawing(name, title, description, svg, (table,))


def _logarithmic(axes: Axes, values: Iterable[float]) -> None:
    """A logarithmic axis around the positive `values`, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive) / 1.3, max(positive) * 1.3
    axes.set_ylim(low, high)
    axes.set_yscale("log")
    is_narrow = high / low < _NARROW
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if is_narrow else (1.0,), numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.significant(float(value), 1)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _layer_panel(panel: Axes, lines: list[tuple[str, list[tuple[int, float]]]], *, percent: bool) -> list[_End]:
    """Draw a line a layer; where each ends."""
    ends: list[_End] = []
    for place, (layer, points) in enumerate(lines):
        shade = _SHADES[round(place * (len(_SHADES) - 1) / max(1, len(lines) - 1))]
        visible = [(x, y) for x, y in points if percent or y > 0]  # a logarithm has no zero
        if not visible:
            continue
        ends.append((layer, visible[-1]))
        panel.plot(
            [x for x, _ in visible], [y for _, y in visible], color=shade, linewidth=1.5, label=layer,
            marker="o" if len(visible) < 3 else "", markersize=3,
        )  # fmt: skip
    if percent:
        panel.set_ylim(-0.02, 1.02)
        panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    panel.grid(visible=True)
    last = max(x for _, points in lines for x, _ in points)
    ticks = [tick for tick in panel.get_xticks() if 0 <= tick <= last]
    panel.set_xlim(0, 1.42 * last)  # room for the names
    panel.set_xticks(ticks)
    return ends


def _label_ends(figure: Figure, panels: Sequence[tuple[Axes, list[_End]]]) -> None:
    """The names of some layers beside the ends of their lines, none upon another."""
    figure.canvas.draw()
    for panel, ends in panels:
        every = max(1, math.ceil((len(ends) - 1) / (_MOST_LABELS - 1)))
        chosen = [*ends[:-1:every], *ends[-1:]]
        placed = sorted((float(panel.transData.transform(point)[1]), layer, point) for layer, point in chosen)
        box = panel.get_window_extent()
        heights: list[float] = []
        for height, _, _ in placed:
            heights.append(max(height, heights[-1] + _LINE_GAP if heights else box.y0))
        too_high = max(0.0, heights[-1] - box.y1) if heights else 0.0
        for (height, layer, point), wanted in zip(placed, heights, strict=True):
            text = panel.annotate(
                words.short(layer, 18), point, (6, wanted - too_high - height), textcoords="offset points",
                fontsize=FONT - 2.5, color=INK, va="center", annotation_clip=False,
            )  # fmt: skip
            text.set_in_layout(False)


def _layer_table(run: Learning, statistic: str, title: str) -> Table:
    rows = []
    for layer in run.layers:
        values = [value for _, value in run.series(layer, statistic)]
        if values:
            middle = sorted(values)[len(values) // 2]
            rows.append((layer, *(words.significant(value) for value in (values[0], middle, values[-1]))))
    head = columns("Layer", "#First look", "#Median", "#Last look")
    return Table(f"{words.short(run.name, 60)}: {title.lower()}", head, rows, f"metrics.jsonl, vital_signs.{statistic}")


def _svg(figure: Figure, name: str, title: str, description: str) -> str:
    svg = inline_svg(figure, name=name, title=title, description=description)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
