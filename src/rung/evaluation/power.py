"""What a test set can decide: the smallest detectable difference of two systems, and the items a difference needs.

Both systems answer the same items, so only the items on which they disagree carry information. With a share
`discordance` of such items and a true difference d of the two accuracies, McNemar's test at level alpha finds d with
the stated power from n = (z(1 - alpha/2) sqrt(discordance) + z(power) sqrt(discordance - d^2))^2 / d^2 items on
(Connor 1987, Biometrics 43: 207-211). The same holds for non-inferiority, with d the distance of the true difference
from the margin: two equally good systems are a margin away from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import ndtri

from rung.errors import EvaluationError

POWER = 0.80
ALPHA = 0.05
USUAL_DISCORDANCE = 0.10
"""Assumed before anything was measured; evaluation tables show 5 % (close relatives) to 20 % (unlike systems)."""


@dataclass(frozen=True)
class PowerStatement:
    """What a test set of `n` items can decide; differences and margin as shares (0.01 is one point)."""

    n: int
    margin: float
    discordance: float
    detectable_difference: float
    needed_for_margin: int
    sentence: str


def items_needed(difference: float, discordance: float, *, power: float = POWER, alpha: float = ALPHA) -> int:
    """Return the paired items from which a true `difference` is found with `power`.

    Raises EvaluationError unless 0 < difference < discordance <= 1: systems that differ by 5 points disagree on more
    than 5 % of the items, unless one of them is never right where the other is wrong.
    """
    if not 0 < difference < discordance <= 1:
        raise EvaluationError(
            f"a difference of {difference:.4g} is not possible with a discordance of {discordance:.4g}",
            hint="the difference must be positive and smaller than the share of items on which the two disagree",
        )
    return math.ceil((_separation(difference, discordance, power, alpha) / difference) ** 2)


def detectable_difference(n: int, discordance: float, *, power: float = POWER, alpha: float = ALPHA) -> float:
    """Return the smallest true difference that `n` paired items find with `power`, at most 1.

    A difference beyond `discordance` implies that many discordant items, so the discordance grows with it there.
    Raises EvaluationError unless n > 0 and 0 < discordance <= 1.
    """
    if n < 1 or not 0 < discordance <= 1:
        raise EvaluationError(f"no power to compute for {n} items with a discordance of {discordance:.4g}")

    def missing(difference: float) -> float:
        return _separation(difference, max(discordance, difference), power, alpha) - math.sqrt(n) * difference

    return 1.0 if missing(1.0) >= 0 else float(brentq(missing, 1e-12, 1.0, xtol=1e-12))


def power_statement(n: int, margin: float, *, discordance: float = USUAL_DISCORDANCE) -> PowerStatement:
    """Say, before the run, what `n` test items can decide. Raises EvaluationError for a margin not in (0, 1)."""
    if not 0 < margin < 1:
        raise EvaluationError(f"the margin must lie between 0 and 1 (0.01 is one point), not {margin}")
    smallest = detectable_difference(n, discordance)
    needed = items_needed(margin, max(discordance, 2 * margin))
    points = f"{100 * margin:g} {'point' if margin == 0.01 else 'points'}"
    enough = "so this many are enough" if n >= needed else "so with fewer the answer is often 'not decided'"
    sentence = (
        f"{n:,} test items will show differences from {100 * smallest:.1f} points up (80 % power, if two rungs "
        f"disagree on {100 * discordance:g} % of the items); showing that two equally good rungs are within {points} "
        f"of each other takes about {needed:,}, {enough}."
    )
    return PowerStatement(n, margin, discordance, smallest, needed, sentence)


def _separation(difference: float, discordance: float, power: float, alpha: float) -> float:
    """sqrt(n) times the difference at which the test has the power."""
    under_null = -float(ndtri(alpha / 2)) * math.sqrt(discordance)
    return under_null + float(ndtri(power)) * math.sqrt(max(discordance - difference**2, 0.0))
