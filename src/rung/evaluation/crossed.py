"""Intervals of a mean over several crossed choices: templates, draws of examples, and items.

A prompted model's accuracy is a mean over a table templates x draws x items. Resampling items alone would call the
template and the examples at hand the only ones there are; so each axis is resampled, independently of the others, and
the weights multiplied: the pigeonhole bootstrap (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1,
386-411). It is at worst conservative: where one axis dominates it is right, where none does up to three times too wide.
With three templates an axis has few values to draw from, and the interval is as coarse as that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rung.evaluation.intervals import LEVEL
from rung.evaluation.summed import RESAMPLES
from rung.records import Interval

METHOD = f"pigeonhole bootstrap over templates, draws of examples and items (Owen 2007), {RESAMPLES:,} resamples"
_CHUNK = 4_000_000  # weights held in memory at a time

Floats = NDArray[np.float64]


def crossed_interval(scores: NDArray[np.generic], *, seed: int = 0) -> Interval:
    """The 95 % interval of the mean of `scores` (templates, draws, items)."""
    templates, draws, items = scores.shape
    return _interval(_means([scores], np.random.default_rng(seed), templates, [draws], items)[0])


def crossed_change(first: NDArray[np.generic], second: NDArray[np.generic], *, seed: int = 0) -> Interval:
    """The 95 % interval of `second.mean() - first.mean()`: templates and items are shared, draws are each one's own."""
    templates, _, items = first.shape
    if (templates, items) != (second.shape[0], second.shape[2]):
        raise ValueError("both must be over the same templates and items")
    draws = [first.shape[1], second.shape[1]]
    one, other = _means([first, second], np.random.default_rng(seed), templates, draws, items)
    return _interval(other - one)


def _means(
    tables: Sequence[NDArray[np.generic]],
    generator: np.random.Generator,
    templates: int,
    draws: Sequence[int],
    items: int,
) -> list[Floats]:
    """The mean of each table in each resample, (resamples,); all from the same templates and items."""
    flat = [table.astype(np.float64).reshape(-1, items) for table in tables]
    found: list[list[Floats]] = [[] for _ in tables]
    rows = max(1, _CHUNK // items)
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        of_items = _weights(generator, items, size)
        of_templates = _weights(generator, templates, size)
        for index, table in enumerate(flat):
            cells = (_weights(generator, draws[index], size)[:, None] * of_templates[:, :, None]).reshape(size, -1)
            found[index].append(((of_items @ table.T) * cells).sum(axis=1) / table.size)
    return [np.concatenate(parts) for parts in found]


def _weights(generator: np.random.Generator, count: int, size: int) -> Floats:
    """How often each of `count` is drawn in `count` draws, (size, count)."""
    return generator.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)


def _interval(draws: Floats) -> Interval:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(low=float(low), high=float(high), level=LEVEL, method=METHOD)
