"""Names beside points that do not cover each other, the points, or the lines around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rung.comparison.plot_style import FONT, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels
_ANGLES = tuple(math.radians(degrees) for degrees in (0, 180, 90, 270, 35, 325, 145, 215, 60, 300, 120, 240))
_DISTANCES = (9.0, 15.0, 24.0, 36.0, 50.0, 68.0, 90.0, 116.0)
_LEADER_FROM = 20.0  # a label further away than this gets a line to its point
_GAP = 2.0
_MARKER = 6.0


def overlap(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
    soft: Sequence[Box] = (),
) -> list[Box]:
    """Write each name near its point (data coordinates) and return the boxes of the names, in pixels.

    Greedy, the most crowded points first: each name takes the place with the least cover, then the nearest. `soft`
    are boxes (pixels) such as error bars, which a name avoids when it can. Call after axes limits are final.
    """
    figure = axes.figure
    figure.canvas.draw()
    pixels = [(float(place[0]), float(place[1])) for place in map(axes.transData.transform, points)]
    frame = axes.get_window_extent()
    bounds = (frame.x0, frame.y0, frame.x1 + 4, frame.y1 + 14)
    hard = [(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in pixels]
    crowd = [sum(math.dist(one, other) < 80 for other in pixels) for one in pixels]
    boxes: dict[int, Box] = {}
    for index in sorted(range(len(names)), key=lambda i: (-crowd[i], i)):
        x, y = pixels[index]
        text = axes.annotate(
            names[index], points[index], (0, 0), textcoords="offset points", fontsize=FONT - 0.5, color=colours[index],
            ha="left", va="bottom", annotation_clip=False,
        )  # fmt: skip
        text.set_in_layout(False)
        extent = text.get_window_extent()
        box, distance = _best_place((x, y), (extent.width, extent.height), bounds, hard, soft)
        hard.append(box)
        boxes[index] = box
        text.set_position((box[0] - x, box[1] - y))
        if distance > _LEADER_FROM:
            _leader(axes, (x, y), box)
    return [boxes[index] for index in range(len(names))]


def _best_place(
    point: tuple[float, float], size: tuple[float, float], bounds: Box, hard: Sequence[Box], soft: Sequence[Box]
) -> tuple[Box, float]:
    (x, y), (width, height) = point, size
    best: tuple[float, Box, float] | None = None
    for distance in _DISTANCES:
        for angle in _ANGLES:
            box = _box_at(x + distance * math.cos(angle), y + distance * math.sin(angle), angle, width, height)
            padded = (box[0] - _GAP, box[1] - _GAP, box[2] + _GAP, box[3] + _GAP)
            outside = width * height - overlap(box, bounds)
            cost = (
                20 * sum(overlap(padded, other) for other in hard)
                + 3 * sum(overlap(box, other) for other in soft)
                + 50 * outside
                + 4 * distance
            )
            if best is None or cost < best[0] - 1e-6:
                best = (cost, box, distance)
    assert best is not None  # noqa: S101 - the candidates are constants
    return best[1], best[2]


def _box_at(x: float, y: float, angle: float, width: float, height: float) -> Box:
    """The box whose side or corner towards the point is at (x, y)."""
    left = x - width * (1 - math.cos(angle)) / 2
    bottom = y - height * (1 - math.sin(angle)) / 2
    return left, bottom, left + width, bottom + height


def _leader(axes: Axes, start: tuple[float, float], box: Box) -> None:
    end = (min(max(start[0], box[0]), box[2]), min(max(start[1], box[1]), box[3]))
    inverse = axes.transData.inverted()
    (x0, y0), (x1, y1) = inverse.transform(start), inverse.transform(end)
    (line,) = axes.plot([x0, x1], [y0, y1], color=MUTED, linewidth=0.6, zorder=1, scalex=False, scaley=False)
    line.set_in_layout(False)
