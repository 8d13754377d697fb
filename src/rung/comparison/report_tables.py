"""The tables that page and Markdown share: rungs at a glance, data, one rung in detail, what is missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rung.comparison import report_text as words
from rung.comparison.plots import measured, role
from rung.comparison.report_details import ClassificationDetails, Prompting, Repeat
from rung.comparison.report_table import Table, columns
from rung.comparison.result import Comparison, RungResult
from rung.records import Record

MATRIX_CLASSES = 12  # a confusion matrix beyond this cannot be read: the most confused pairs are listed instead
CONFUSED_PAIRS = 20
_QUALITY = ("accuracy", "macro_f1", "bleu", "chrf")  # shown for every rung where the task has them
CLASSES_SHOWN = 30
DISAGREEMENTS_SHOWN = 50
_PARETO_WORDS = {"quality_latency": "latency", "quality_size": "size", "quality_cost": "cost"}
_REPEATS = {
    "same_process": "again in the same process",
    "fresh_process": "in a fresh process",
    "batch_size": "with another batch size",
    "companions": "among other texts in the batch",
    "threads": "with another number of threads",
}


def record(rung: RungResult, name: str) -> Record | None:
    """The rung's record called `name`, measured or not; None when it has none."""
    return next((found for found in rung.metrics if found.name == name), None)


def marks(comparison: Comparison, name: str) -> str:
    """What a rung is in this comparison, in words."""
    found = []
    if name == comparison.verdict.chosen:
        found.append("best small rung")
    if name == comparison.verdict.reference:
        found.append("reference")
    sets = [word for key, word in _PARETO_WORDS.items() if name in comparison.pareto.get(key, [])]
    if sets:
        found.append(f"Pareto: {', '.join(sets)}")
    return "; ".join(found)


def ladder_table(comparison: Comparison) -> Table:
    """All rungs at a glance, from the lowest up."""
    metric = words.primary_metric(comparison)
    usual = [name for name in _QUALITY if any(record(rung, name) for rung in comparison.rungs)]
    shown = [*usual, *([metric] if metric not in usual else [])]
    short_head = {
        "latency_batch1_p50": "#Latency (p50)",
        "bytes_on_disk": "#Size",
        "train_seconds": "#Training",
        "cost_per_1000": "#Cost per 1,000",
    }
    if not any(measured(rung, "cost_per_1000") for rung in comparison.rungs):
        short_head.pop("cost_per_1000")
    rungs = sorted(comparison.rungs, key=lambda rung: rung.height)
    several = any(len(rung.seeds) > 1 for rung in rungs)
    rows = []
    for rung in rungs:
        quality = [words.with_interval(record(rung, name)) for name in shown]
        if several:
            quality.append(_mean_of_fits(rung, metric))
        costs = [words.record_value(record(rung, name)) for name in short_head]
        rows.append((rung.name, *quality, *costs, marks(comparison, rung.name)))
    head = columns(
        "Rung", *(f"#{words.label(name)}{' (decides)' if name == metric and not several else ''}" for name in shown),
        *(["#Mean of fits (decides)"] if several else []), *short_head.values(), "Marks",
    )  # fmt: skip
    roles = {row: role(comparison, rung.name) for row, rung in enumerate(rungs)}
    note = (
        "Intervals at 95 %, of the fit that is kept. Latency: one text, tokenisation included. Pareto: no other rung "
        "is both better and cheaper."
    )
    return Table(
        f"The ladder, from counting words upwards. {note}", head, rows,
        f"rungs[].metrics[{', '.join([*shown, *short_head])}], pareto",
        {row: found for row, found in roles.items() if found != "other"},
    )  # fmt: skip


def _mean_of_fits(rung: RungResult, metric: str) -> str:
    """The primary metric as the verdict takes it: the mean over the fits with different seeds."""
    if not rung.seeds:
        return words.record_value(None)
    values = [float(one["value"]) for one in rung.seeds]
    fits = f" ({len(values)} fits)" if len(values) > 1 else ""
    return words.primary_value(sum(values) / len(values), metric) + fits


def not_drawn(comparison: Comparison, name: str) -> list[str]:
    """Rungs without the record `name`."""
    return [rung.name for rung in comparison.rungs if measured(rung, name) is None]


# --- data ---------------------------------------------------------------------------------------------------------


def class_table(comparison: Comparison) -> Table:
    """Rows by class and part."""
    classes = comparison.data.classes
    rows = [
        (str(found["label"]), *(f"{int(found.get(part, 0)):,}" for part in ("train", "valid", "test")))
        for found in classes[:CLASSES_SHOWN]
    ]
    return Table(
        _first_of("Rows by class", CLASSES_SHOWN, len(classes), "classes, most frequent first"),
        columns("Class", "#Train", "#Validation", "#Test"), rows, "data.classes",
    )  # fmt: skip


def gate_table(comparison: Comparison) -> Table:
    """What the gates before training found."""
    rows = [
        (
            str(gate["name"]),
            "passed" if gate.get("passed") else "not passed",
            f"{gate['count']:,}" if isinstance(gate.get("count"), int) else words.NOT_MEASURED,
            words.percent(float(gate["share"])) if gate.get("share") is not None else words.NOT_MEASURED,
            str(gate.get("sentence", "")),
        )
        for gate in comparison.data.gates
    ]
    return Table("Gates before training", columns("Gate", "Result", "#Found", "#Share", "In words"), rows, "data.gates")


def facts_of_data(comparison: Comparison) -> list[tuple[str, str]]:
    """Name and value of the facts about the data."""
    data = comparison.data
    split = data.split
    parts = " / ".join(f"{int(split.get(part, 0)):,}" for part in ("train", "valid", "test"))
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in data.rejected.items()) or "none"
    return [
        ("Files", ", ".join(data.files)),
        ("SHA-256 of the data", data.sha256),
        ("Target column", data.target),
        ("Text columns", ", ".join(data.text_columns)),
        ("Rows", f"{data.rows:,}"),
        ("Rows left out", rejected),
        ("Train / validation / test", parts),
        ("Split", str(split.get("method", words.NOT_MEASURED))),
        ("SHA-256 of the split", str(split.get("sha256", words.NOT_MEASURED))),
    ]


# --- one rung -----------------------------------------------------------------------------------------------------


def all_metrics_table(rung: RungResult) -> Table:
    """Every record of a rung with its interval, number of items and method."""
    rows = [
        (
            words.label(found.name),
            words.record_value(found),
            words.record_interval(found),
            f"{found.n:,}",
            found.interval.method if found.interval else (found.not_measured or ""),
        )
        for found in rung.metrics
    ]
    head = columns("Metric", "#Value", "#Interval", "#Items", "Method, or why not")
    return Table(f"All records of {words.short(rung.name)}", head, rows, f"rungs[{rung.name}].metrics")


def seeds_table(rung: RungResult, metric: str) -> Table | None:
    """The primary metric of each fit."""
    if not rung.seeds:
        return None
    rows = [(str(found["seed"]), words.primary_value(float(found["value"]), metric)) for found in rung.seeds]
    caption = f"{words.label(metric)} of {words.short(rung.name)} by seed"
    return Table(caption, columns("Seed", f"#{words.label(metric)}"), rows, f"rungs[{rung.name}].seeds")


def per_class_table(rung: RungResult, details: ClassificationDetails) -> Table | None:
    """Precision, recall and F1 by class; of many classes the worst by F1."""
    if not details.per_class:
        return None
    found = details.per_class
    if len(found) > CLASSES_SHOWN:
        found = sorted(found, key=lambda scores: (scores.f1 if scores.f1 is not None else 2.0, scores.label))
    rows = [
        (one.label, _share(one.precision), _share(one.recall), _share(one.f1), f"{one.support:,}")
        for one in found[:CLASSES_SHOWN]
    ]
    caption = _first_of(f"By class: {words.short(rung.name)}", CLASSES_SHOWN, len(found), "classes, lowest F1 first")
    head = columns("Class", "#Precision", "#Recall", "#F1", "#Test items")
    return Table(caption, head, rows, f"rungs[{rung.name}].details.per_class")


def confused_table(rung: RungResult, details: ClassificationDetails) -> Table | None:
    """The pairs of classes that are confused most often."""
    if not details.confusion or not details.labels:
        return None
    labels, matrix = details.labels, details.confusion
    pairs = [
        (count, labels[i], labels[j], sum(row))
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    rows = [
        (truth, said, f"{count:,}", f"{total:,}", words.percent(count / total))
        for count, truth, said, total in pairs[:CONFUSED_PAIRS]
    ]
    caption = _first_of(f"Confused most often by {words.short(rung.name)}", CONFUSED_PAIRS, len(pairs), "pairs")
    head = columns("True class", "Answered", "#Items", "#Of the true class", "#Share")
    return Table(caption, head, rows, f"rungs[{rung.name}].details.confusion")


def group_table(rung: RungResult, details: ClassificationDetails) -> Table | None:
    """Accuracy by group."""
    if not details.groups:
        return None
    rows = []
    for found in details.groups:
        hidden = found.suppressed or found.accuracy is None
        interval = (
            "" if hidden or found.low is None or found.high is None else f"{_share(found.low)} to {_share(found.high)}"
        )
        rows.append((found.group, f"{found.n:,}", "too few items" if hidden else _share(found.accuracy), interval))
    head = columns("Group", "#Test items", "#Accuracy", "#95 % interval")
    return Table(f"By group: {words.short(rung.name)}", head, rows, f"rungs[{rung.name}].details.groups")


def leaked_table(rung: RungResult, details: ClassificationDetails) -> Table | None:
    """Accuracy on test items that training has seen, apart from all other figures."""
    if details.leaked is None:
        return None
    rows = [(f"{details.leaked.n:,}", _share(details.leaked.accuracy))]
    head = columns("#Leaked test items", "#Accuracy on them")
    caption = f"Test items that are in training, counted nowhere else: {words.short(rung.name)}"
    return Table(caption, head, rows, f"rungs[{rung.name}].details.leaked")


def determinism_table(rung: RungResult, details: ClassificationDetails) -> Table | None:
    """How alike repeated predictions are."""
    if not details.determinism:
        return None
    rows = []
    for key, found in details.determinism.items():
        repeat = found or Repeat()
        rows.append(
            (
                _REPEATS.get(key, key.replace("_", " ")),
                _share(repeat.exact_rate),
                _share(repeat.flip_rate),
                words.NOT_MEASURED if repeat.max_difference is None else words.significant(repeat.max_difference, 2),
            )
        )
    head = columns("Predicted", "#Bitwise equal", "#Answer changed", "#Largest difference")
    return Table(f"Determinism of {words.short(rung.name)}", head, rows, f"rungs[{rung.name}].details.determinism")


def prompting_facts(prompting: Prompting) -> list[tuple[str, str]]:
    """What only a prompted model has to answer for."""
    leave = {None: words.NOT_MEASURED, True: "yes", False: "no"}[prompting.data_leave_machine]
    cost = words.NOT_MEASURED
    if prompting.cost_per_1000 is not None:
        cost = f"{prompting.cost_per_1000:,.2f} {prompting.currency or ''}".rstrip()
    return [
        ("Data leave this machine", leave),
        ("Cost per 1,000 texts", cost),
        ("Answers that could not be read (counted as errors)", _plain(prompting.parse_failures)),
        ("Texts whose answer varied when asked again", _varied(prompting.answer_variation)),
    ]


def _varied(variation: dict[str, Any] | None) -> str:
    if variation is None:
        return words.NOT_MEASURED
    asked = (
        f"{variation['items']:,} texts asked {variation['samples']} times at temperature {variation['temperature']:g}"
    )
    return f"{_share(variation['varying_share'])} of {asked}"


def prompting_tables(rung: RungResult, prompting: Prompting) -> list[Table]:
    """Each template and draw of examples, how accuracy varies over them, and answers that could not be read."""
    shown: dict[str, Sequence[dict[str, Any]]] = {
        "templates": prompting.templates,
        "variation": prompting.variation,
        "failures": prompting.failures,
    }
    captions = {
        "templates": "Templates and draws of examples",
        "variation": "Variation over templates and draws",
        "failures": "The first answers that could not be read",
    }
    found = []
    for key, given in shown.items():
        if given:
            keys = list(dict.fromkeys(name for row in given for name in row))
            rows = [tuple(_plain(row.get(name)) for name in keys) for row in given]
            head = columns(*(name.replace("_", " ") for name in keys))
            source = f"rungs[{rung.name}].details.prompting.{key}"
            found.append(Table(f"{captions[key]}: {words.short(rung.name)}", head, rows, source))
    return found


def _share(value: float | None) -> str:
    return words.NOT_MEASURED if value is None else words.percent(value)


def _plain(value: Any) -> str:
    if value is None:
        return words.NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f"{value:,.0f}"
    return words.significant(value) if isinstance(value, float) else str(value)


def _first_of(caption: str, limit: int, total: int, what: str) -> str:
    return caption if total <= limit else f"{caption} (the first {limit} of {total:,} {what}; all are in report.json)"


# --- the end ------------------------------------------------------------------------------------------------------


def missing_table(comparison: Comparison) -> Table | None:
    """Which records have no value, by reason."""
    by_reason: dict[tuple[str, str], list[str]] = defaultdict(list)
    for rung in comparison.rungs:
        for found in rung.metrics:
            if found.not_measured is not None:
                by_reason[words.label(found.name), found.not_measured].append(rung.name)
    rows = []
    for (metric, reason), names in sorted(by_reason.items()):
        everyone = len(names) == len(comparison.rungs) and len(names) > 1
        rows.append((metric, "all rungs" if everyone else ", ".join(words.short(name) for name in names), reason))
    if not rows:
        return None
    return Table("Records without a value", columns("Metric", "Rungs", "Why"), rows, "rungs[].metrics[].not_measured")


def facts_to_repeat(comparison: Comparison) -> list[tuple[str, str]]:
    """What is needed to run it again."""
    settings = ", ".join(f"{key} {_plain(value)}" for key, value in comparison.settings.items())
    return [
        ("Command", comparison.command),
        ("Settings", settings),
        ("Rung", comparison.rung_version),
        ("Machine", comparison.machine),
        ("Made", comparison.created),
        ("Took", words.duration(comparison.seconds)),
        ("SHA-256 of the data", comparison.data.sha256),
        ("SHA-256 of the split", str(comparison.data.split.get("sha256", words.NOT_MEASURED))),
        ("Format of report.json", f"version {comparison.schema_version}"),
    ]
