"""Numbers and foreign texts in the words of the report: one way to write each, for page, Markdown and terminal.

Texts of the user's data are hostile until shown otherwise: control and direction characters are written out, and what
is too long is cut with a visible mark.
"""

from __future__ import annotations

import math
import unicodedata

from rung.comparison.result import Comparison
from rung.records import Record

NOT_MEASURED = "not measured"
MINUS = "\N{MINUS SIGN}"
TEXT_LIMIT = 600

LABELS = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "mcc": "Matthews correlation",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "log_loss": "Log-loss",
    "brier": "Brier score",
    "ece": "Calibration error (ECE)",
    "temperature": "Temperature",
    "aurc": "Area under risk-coverage",
    "train_seconds": "Training, wall time",
    "train_cpu_seconds": "Training, CPU time",
    "parameters": "Parameters",
    "bytes_on_disk": "Size on disk",
    "peak_memory": "Peak memory",
    "latency_batch1_p50": "Latency, one text, median",
    "latency_batch1_p95": "Latency, one text, 95th percentile",
    "latency_batch32_p50": "Latency, 32 texts, median",
    "latency_batch32_p95": "Latency, 32 texts, 95th percentile",
    "load_seconds": "Loading",
    "items_per_second": "Throughput",
    "energy": "Energy",
    "cost_per_1000": "Cost per 1,000 texts",
}
_PERCENTAGES = frozenset({"accuracy", "macro_f1", "ece"})
_OF_HUNDRED = frozenset({"bleu", "chrf", "rouge1", "rouge2", "rougeL"})  # shares that their field writes without %
_PLAIN = frozenset({"mcc", "auroc", "auprc", "brier", "aurc"})
_SECONDS = {"s": 1.0, "seconds": 1.0, "ms": 1e-3, "milliseconds": 1e-3}
_BYTES = {"bytes": 1, "byte": 1, "B": 1}
# Characters that reorder, hide or join what stands around them (Unicode TR 36): written out instead of obeyed.
# The two joiners U+200C and U+200D stay, because Persian and many emoji are spelled with them.
_KEPT_FORMAT_CHARACTERS = frozenset("\u200c\u200d\u00ad")


def clean(text: str, limit: int = TEXT_LIMIT) -> str:
    """`text` on one line, with characters that could deceive the eye written out and the end cut visibly."""
    shown = "".join(_visible(character) for character in text[:limit])
    left_out = len(text) - limit
    return shown if left_out <= 0 else f"{shown} \N{HORIZONTAL ELLIPSIS} [cut: {left_out:,} more characters]"


def _visible(character: str) -> str:
    if character in "\n\r\t":
        return " "
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in _KEPT_FORMAT_CHARACTERS:
        return f"\N{MATHEMATICAL LEFT ANGLE BRACKET}U+{ord(character):04X}\N{MATHEMATICAL RIGHT ANGLE BRACKET}"
    return character


def short(name: str, limit: int = 30) -> str:
    """A name for a figure or a narrow column: the middle is left out, since both ends tell names apart."""
    name = clean(name, 10_000)
    if len(name) <= limit:
        return name
    tail = limit * 2 // 3
    return f"{name[: limit - tail - 1]}\N{HORIZONTAL ELLIPSIS}{name[-tail:]}"


def label(metric: str) -> str:
    """The metric's name for people."""
    return LABELS.get(metric, metric.replace("_", " "))


def minus(text: str) -> str:
    """A leading hyphen as a real minus sign."""
    return MINUS + text[1:] if text.startswith("-") else text


def significant(value: float, digits: int = 3) -> str:
    """`value` to some significant digits, thousands grouped, no exponent within reason."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if not -5 <= exponent < 15:
        return minus(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - exponent)
    return minus(f"{value:,.{decimals}f}")


def percent(value: float, decimals: int = 1) -> str:
    """A share as a percentage; never rounded up to 100 or down to 0 when it is neither."""
    if 0 < value < 1 and round(100 * value, decimals) in (0.0, 100.0):
        edge = 10.0**-decimals
        return f"<{edge:.{decimals}f} %" if value < 0.5 else f">{100 - edge:.{decimals}f} %"
    return minus(f"{100 * value:.{decimals}f} %")


def points(value: float, decimals: int = 1) -> str:
    """A difference of shares in percentage points, with its sign."""
    rounded = round(100 * value, decimals)
    return f"{0:.{decimals}f}" if rounded == 0 else minus(f"{rounded:+.{decimals}f}")


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 1e-3:
        return f"{significant(seconds * 1e6)} µs"
    if seconds < 1:
        return f"{significant(seconds * 1e3)} ms"
    if seconds < 120:
        return f"{significant(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 120 else f"{significant(seconds / 3600)} h"


def size(count: float) -> str:
    """Bytes in kB, MB, GB (powers of 1,000, as disks count)."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{significant(count / factor)} {unit}"
    return f"{count:,.0f} bytes"


def record_value(record: Record | None) -> str:
    """The record's value in words, or that it was not measured."""
    if record is None or record.value is None:
        return NOT_MEASURED
    return _with_unit(record, record.value)


def record_interval(record: Record | None) -> str:
    """`92.1 to 94.5`, or an empty string where there is no interval."""
    if record is None or record.value is None or record.interval is None:
        return ""
    low, high = record.interval.low, record.interval.high
    if is_percentage(record.name):
        return f"{minus(f'{100 * low:.1f}')} to {minus(f'{100 * high:.1f}')}"
    return f"{_with_unit(record, low)} to {_with_unit(record, high)}"


def with_interval(record: Record | None) -> str:
    """Value and, in brackets, its interval."""
    interval = record_interval(record)
    return f"{record_value(record)} ({interval})" if interval else record_value(record)


def _with_unit(record: Record, value: float) -> str:
    if is_percentage(record.name):
        return primary_value(value, record.name)
    if record.unit in _SECONDS:
        return duration(value * _SECONDS[record.unit])
    if record.unit in _BYTES:
        return size(value)
    if record.name == "cost_per_1000":
        return (
            f"{value:,.2f} {record.unit}" if value >= 0.01 or value == 0 else f"{significant(value, 2)} {record.unit}"
        )
    if record.unit in {"", "share", "fraction", "ratio"} or record.name in _PLAIN:
        return minus(f"{value:.3f}")
    counted = f"{value:,.0f}" if value.is_integer() else significant(value)
    return counted if record.unit == record.name else f"{counted} {record.unit}"


def primary_value(value: float, metric: str) -> str:
    """A value of the primary metric."""
    if metric in _OF_HUNDRED:
        return minus(f"{100 * value:.1f}")
    return percent(value) if metric in _PERCENTAGES else minus(f"{value:.3f}")


def difference_value(value: float, metric: str) -> str:
    """A difference of the primary metric: points for shares, else the metric's own unit with a sign."""
    return points(value) if is_percentage(metric) else minus(f"{value:+.3f}")


def margin(value: float, metric: str) -> str:
    """The margin with its unit: `1 percentage point`."""
    if not is_percentage(metric):
        return f"{value:g} ({label(metric)})"
    amount, unit = f"{100 * value:g}", f"point of {label(metric)}" if metric in _OF_HUNDRED else "percentage point"
    return f"{amount} {unit if amount == '1' else unit.replace('point', 'points')}"


def difference_unit(metric: str) -> str:
    """The unit of a difference, for axes and headings."""
    if metric in _OF_HUNDRED:
        return f"points of {label(metric)}"
    return "percentage points" if metric in _PERCENTAGES else label(metric)


def is_percentage(metric: str) -> bool:
    """Whether the metric is a share that is shown times 100."""
    return metric in _PERCENTAGES or metric in _OF_HUNDRED


def primary_metric(comparison: Comparison) -> str:
    """The metric that decides."""
    return str(comparison.settings.get("metric", "accuracy"))


def p_value(value: float | None) -> str:
    """A p-value to three decimals, never as zero."""
    if value is None:
        return NOT_MEASURED
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def answer_words(answer: str) -> str:
    """The verdict's answer as a word for people."""
    return {"no": "No", "yes": "Yes", "more labels": "Not with this much data", "not decided": "Not decided"}[answer]
