"""Which language model is enough: the lowest rung that is not worse than the best by more than the margin.

The reference is the rung with the fewest bits per byte on validation text, so the test text chooses nothing. A rung is
enough when the 95 % interval of its difference to the reference, paired by test document and drawn over documents and
seeds, lies below the margin, which was fixed before the run. The reference itself is always enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rung.comparison.language_models.result import LanguagePair, LanguageVerdict
from rung.errors import EvaluationError
from rung.evaluation.noninferiority import Difference, difference
from rung.evaluation.summed import SummedScores
from rung.records import Interval, ItemScores, Record


def judge(
    test: Mapping[str, Sequence[ItemScores]], valid: Mapping[str, Sequence[float]], *, margin: float, seed: int = 0
) -> tuple[list[LanguagePair], LanguageVerdict]:
    """Pairs against the reference, and the verdict; mappings go by rung, from the lowest up, with an entry a fit.

    Raises EvaluationError when the scores are over different documents, or over a single one: no interval can be had.
    """
    if len(next(iter(test.values()))[0].ids) < 2:
        raise EvaluationError(
            "the test text is a single document, which leaves chance unknown", hint="give more text, or --test texts"
        )
    reference = min(valid, key=lambda name: float(np.mean(valid[name])))
    better = {name: [_larger_is_better(scores) for scores in fits] for name, fits in test.items()}
    found = {name: difference(fits, better[reference], seed=seed) for name, fits in better.items() if name != reference}
    pairs = [_pair(name, reference, one, margin) for name, one in found.items()]
    by_name = {pair.rung: pair for pair in pairs}
    enough = next(name for name in test if name == reference or by_name[name].non_inferior)
    means = {name: float(np.mean([fit.mean for fit in fits])) for name, fits in test.items()}
    return pairs, LanguageVerdict(
        sentence=_sentence(enough, reference, by_name, means, margin),
        reasons=_reasons(enough, reference, by_name, valid),
        enough=enough,
        reference=reference,
        margin=margin,
    )


def _larger_is_better(scores: ItemScores) -> SummedScores:
    return SummedScores.of_items(ItemScores(scores.ids, -scores.values, scores.weights))


def _pair(name: str, reference: str, found: Difference, margin: float) -> LanguagePair:
    """Turn round the sign: a positive difference is more bits, which is worse."""
    interval = None
    if found.interval is not None:
        one = found.interval
        interval = Interval(low=-one.high, high=-one.low, level=one.level, method=one.method)
    return LanguagePair(
        rung=name,
        reference=reference,
        difference=Record(
            name="difference in bits_per_byte",
            value=-found.value,
            unit="bits per byte",
            n=found.n,
            interval=interval,
            signature="rung minus reference, paired by test document, mean over fits",
        ),
        non_inferior=found.non_inferior(margin),
        inferior=found.inferior(margin),
    )


def _sentence(
    enough: str, reference: str, pairs: Mapping[str, LanguagePair], means: Mapping[str, float], margin: float
) -> str:
    best = f"the {reference} predicts this text best, at {means[reference]:.3f} bits per byte"
    if enough != reference:
        behind = _behind(pairs[enough])
        return f"The {enough} is enough: {best}, and the {enough} is {behind} (margin {margin:g})."
    names = list(means)
    below = [pairs[name] for name in names[: names.index(reference)]]
    if not below:
        return f"The{best[3:]}, and no rung is lower."
    nearest = min(below, key=lambda pair: pair.difference.value or 0.0)
    unsure = "" if nearest.inferior else ", which leaves open whether that is more than the margin"
    return (
        f"The{best[3:]}, and no lower rung is known to come within {margin:g} of it: the nearest, "
        f"the {nearest.rung}, is {_behind(nearest)}{unsure}."
    )


def _behind(pair: LanguagePair) -> str:
    value = pair.difference.value or 0.0
    side = "behind" if value > 0 else "ahead"
    spread = pair.difference.interval
    told = "" if spread is None else f" (95 % interval {spread.low:+.3f} to {spread.high:+.3f})".replace("-", "−")
    return f"{abs(value):.3f} {side}{told}"


def _reasons(
    enough: str, reference: str, pairs: Mapping[str, LanguagePair], valid: Mapping[str, Sequence[float]]
) -> list[str]:
    lines = [
        f"{reference} was the best on validation text, at {float(np.mean(valid[reference])):.3f} bits per byte.",
    ]
    also = [name for name, pair in pairs.items() if pair.non_inferior and name != enough]
    if also:
        lines.append(f"Also within the margin: {', '.join(also)}.")
    open_ = [name for name, pair in pairs.items() if not pair.non_inferior and not pair.inferior]
    if open_:
        lines.append(f"Neither within nor beyond the margin: {', '.join(open_)}.")
    return lines
