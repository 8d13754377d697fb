"""What the report says in sentences, put together from records only; shared by page and Markdown."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from rung.comparison import report_text as words
from rung.comparison.plots import measured
from rung.comparison.result import Comparison, PairResult, RungResult

QUESTION = "Do you need a large language model for this?"
QUESTION_WITHOUT_PRETRAINED = "Which of the rungs trained here is enough?"


@dataclass(frozen=True)
class KeyFigure:
    """One of the few numbers on top: what it is, the number, and what it rests on."""

    name: str
    value: str
    detail: str


def question(comparison: Comparison) -> str:
    """What the verdict answers: without a pretrained model nothing is claimed about language models."""
    return QUESTION if comparison.verdict.about_pretrained else QUESTION_WITHOUT_PRETRAINED


def terms(comparison: Comparison) -> str:
    """What the reference is and what margin was agreed, in one paragraph."""
    verdict, metric = comparison.verdict, words.primary_metric(comparison)
    kind = "" if verdict.about_pretrained else " No pretrained language model took part."
    margin = words.margin(verdict.margin, metric)
    return (
        f"The reference is {words.clean(verdict.reference, 200)}.{kind} A rung counts as enough when its "
        f"{words.label(metric).lower()} is at most {margin} below the reference's, with 95 % confidence: that margin "
        f"was fixed before the run. {_who_answered_what(comparison)}"
    )


def _who_answered_what(comparison: Comparison) -> str:
    """That all answered the same items; or who was asked about a sample of them only."""
    metric = words.primary_metric(comparison)
    counts = {rung.name: record.n for rung in comparison.rungs for record in rung.metrics if record.name == metric}
    most = max(counts.values(), default=0)
    fewer = [f"{words.clean(name, 200)} {count:,} of {most:,}" for name, count in counts.items() if count < most]
    if not fewer:
        return "All rungs answered the same test items."
    return (
        f"All rungs answered the same test items, but for want of time only a random sample of them was put to "
        f"{', '.join(fewer)}: its interval is wider, and pairs are compared on what both answered."
    )


def chosen_pair(comparison: Comparison) -> PairResult | None:
    """The best small rung against the reference."""
    return next((pair for pair in comparison.pairs if pair.rung == comparison.verdict.chosen), None)


def key_figures(comparison: Comparison) -> list[KeyFigure]:
    """Quality of both, their difference, and how many times faster and smaller the small one is."""
    verdict, metric = comparison.verdict, words.primary_metric(comparison)
    names = {rung.name: rung for rung in comparison.rungs}
    figures = []
    for title, name in (("Best small rung", verdict.chosen), ("Reference", verdict.reference)):
        if name in names and (found := measured(names[name], metric)):
            interval = words.record_interval(found)
            value = words.record_value(found)
            detail = f"{words.label(metric)}, 95 % interval {interval}{_over_seeds(names[name], metric)}"
            figures.append(KeyFigure(f"{title}: {name}", value, detail))
    pair = chosen_pair(comparison)
    if pair is not None and pair.difference.value is not None:
        spread = pair.difference.interval
        ends = (spread.low, spread.high) if spread else None
        text = " to ".join(words.difference_value(end, metric) for end in ends) if ends else words.NOT_MEASURED
        value = words.difference_value(pair.difference.value, metric)
        figures.append(KeyFigure("Difference", value, f"{words.difference_unit(metric)}, 95 % interval {text}"))
    if verdict.chosen in names and verdict.reference in names:
        for record_name, more, less in (
            ("latency_batch1_p50", "faster", "slower"),
            ("bytes_on_disk", "smaller", "larger"),
        ):
            figure = _ratio(comparison, record_name, more, less)
            figures.extend([figure] if figure else [])
    return figures


def _over_seeds(rung: RungResult, metric: str) -> str:
    """The mean over seeds, which paired differences rest on; the value beside it is that of the fit that was kept."""
    if len(rung.seeds) < 2:
        return ""
    mean = statistics.fmean(float(found["value"]) for found in rung.seeds)
    return f"; mean of {len(rung.seeds)} seeds {words.primary_value(mean, metric)}"


def _ratio(comparison: Comparison, name: str, more: str, less: str) -> KeyFigure | None:
    verdict = comparison.verdict
    small = measured(comparison.result(str(verdict.chosen)), name)
    large = measured(comparison.result(verdict.reference), name)
    if small is None or large is None or not small.value or not large.value or verdict.chosen == verdict.reference:
        return None
    ratio = large.value / small.value
    factor = words.significant(max(ratio, 1 / ratio), 2)
    detail = f"{words.record_value(small)} against {words.record_value(large)} ({words.label(name).lower()})"
    return KeyFigure("The small rung is", f"{factor}\N{MULTIPLICATION SIGN} {more if ratio >= 1 else less}", detail)


def summary_of_rung(comparison: Comparison, name: str) -> str:
    """One line under a rung's name."""
    rung = comparison.result(name)
    note = "" if rung.finished else f" Not finished: {rung.note or 'no reason was recorded'}."
    told = f" {rung.note}" if rung.finished and rung.note else ""
    return f"{rung.description}.{note}{told} Kept in {rung.folder or 'no folder'}."
