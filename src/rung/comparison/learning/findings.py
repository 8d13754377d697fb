"""What vital signs say in plain words: only what stands far outside what is usual, each with its threshold and source.

All look at the second half of a run: at the start, zero-initialised layers and the warm-up make odd numbers.
"""

from __future__ import annotations

from statistics import median

from rung.comparison.learning.reading import Learning

HIGH_UPDATE, LOW_UPDATE = 1e-1, 1e-6
"""Updates per step as a share of the weights. About 1e-3 is usual (Karpathy, CS231n notes, "Neural Networks Part 3:
ratio of weights and updates"); two orders above, weights are overwritten every few steps, three below they stand
still."""
MANY_SILENT = 0.4
"""Units without any gradient. CS231n ("Neural Networks Part 1") calls 40 % dead rectifiers a rate set too high."""
MANY_SATURATED = 0.5
"""Outputs of tanh near 1. Glorot and Bengio (2010, section 3) show layers that saturate so stop learning."""
SHORT_REACH = 10
"""Steps. Bengio, Simard and Frasconi (1994) find that gradient descent stops finding what lies 10 to 20 steps back."""

_FEWEST_LOOKS = 3


def findings(run: Learning) -> list[str]:
    """Sentences about one run; none when nothing stands out."""
    return [*_updates(run), *_silent(run), *_saturated(run), *_reach(run)]


def _late(run: Learning, layer: str, statistic: str) -> float | None:
    """The median over the second half of the looks, None where there are too few."""
    found = [value for _, value in run.series(layer, statistic)]
    return median(found[len(found) // 2 :]) if len(found) >= _FEWEST_LOOKS else None


def _named(run: Learning, statistic: str) -> list[tuple[str, float]]:
    values = [(layer, _late(run, layer, statistic)) for layer in run.layers]
    return [(layer, value) for layer, value in values if value is not None]


def _updates(run: Learning) -> list[str]:
    ratios = _named(run, "update_ratio")
    high = [layer for layer, ratio in ratios if ratio > HIGH_UPDATE]
    low = [layer for layer, ratio in ratios if ratio < LOW_UPDATE]
    told = []
    if high:
        told.append(
            f"{run.name}: every step moves {_list(high)} by more than {HIGH_UPDATE:.0%} of its weights, a hundred "
            "times what is usual: try a lower learning rate."
        )
    if low:
        told.append(
            f"{run.name}: {_list(low)} hardly moves, by less than {LOW_UPDATE:g} of its weights a step: try a higher "
            "learning rate, or look whether a gradient gets there."
        )
    return told


def _silent(run: Learning) -> list[str]:
    silent = [(layer, share) for layer, share in _named(run, "without_gradient") if share > MANY_SILENT]
    return [
        f"{run.name}: {share:.0%} of the units of {layer} get no gradient from a whole batch and cannot learn (dead "
        "units): a lower learning rate or another initialisation may keep them alive."
        for layer, share in silent
    ]


def _saturated(run: Learning) -> list[str]:
    full = [(layer, share) for layer, share in _named(run, "saturated") if share > MANY_SATURATED]
    return [
        f"{run.name}: {share:.0%} of what {layer} puts out is saturated (beyond 0.97 of 1), where gradients are nearly "
        "zero: smaller initial weights or a lower learning rate may help."
        for layer, share in full
    ]


def _reach(run: Learning) -> list[str]:
    reaches = run.reaches_while_learning()
    if len(reaches) < _FEWEST_LOOKS or any(reach.longest < 2 * SHORT_REACH for reach in reaches):
        return []
    usual = median(reach.steps for reach in reaches)
    if usual >= SHORT_REACH:
        return []
    return [
        f"{run.name}: {usual:.0f} steps back the gradient is below 1 % of the last step's (vanishing gradient): what "
        "lies further back is not learned. An LSTM, a GRU or a Transformer looks further."
    ]


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more layers"
