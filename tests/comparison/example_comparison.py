"""A made-up comparison with all that a report can show: pages can be tested and seen without training."""

from __future__ import annotations

import math
import random
from typing import Any

from rung.comparison.result import (
    Comparison,
    CurveFit,
    CurvePoint,
    DataFound,
    Disagreement,
    LearningCurve,
    PairResult,
    RungResult,
    Verdict,
)
from rung.records import Interval, Record

LADDER = [
    # name, description, height, accuracy, latency in s, bytes, train seconds, parameters
    ("majority", "always the most frequent label", 0, 0.262, 2e-6, 900, 0.01, 8),
    ("naive-bayes", "counts words", 1, 0.851, 3.1e-5, 410_000, 0.2, 51_000),
    ("linear", "TF-IDF and logistic regression", 2, 0.903, 6.2e-5, 940_000, 2.1, 118_000),
    ("feedforward", "averaged embeddings of words and word pairs", 3, 0.899, 4.4e-5, 2_300_000, 3.4, 560_000),
    ("cnn", "convolutions over words", 4, 0.894, 9.5e-4, 3_100_000, 21.0, 760_000),
    ("gru", "bidirectional recurrent network with attention pooling", 5, 0.892, 2.9e-3, 3_600_000, 44.0, 890_000),
    ("lstm", "bidirectional recurrent network with attention pooling", 5, 0.896, 3.3e-3, 3_900_000, 51.0, 960_000),
    ("encoder", "Transformer encoder from scratch", 6, 0.881, 4.2e-3, 17_000_000, 73.0, 4_200_000),
    ("encoder-pretrained", "Transformer encoder, masked words first", 7, 0.908, 4.2e-3, 17_000_000, 130.0, 4_200_000),
    ("decoder", "small GPT, pretrained on your text", 8, 0.901, 6.0e-3, 21_000_000, 144.0, 5_100_000),
    ("folder:minilm", "MiniLM, fine-tuned", 9, 0.915, 1.4e-2, 90_900_000, 170.0, 22_700_000),
    ("llm", "prompted language model behind an endpoint", 9, 0.909, 0.82, 0, 0.0, 0),
]
HOSTILE = '<script>alert("x")</script> \u202egnp.exe\u202c | `a` [b](http://example.org) & \x07 '
SHA = "3f1c9c0be3d3f1a8e2f4f5b6a7980b1c2d3e4f5061728394a5b6c7d8e9fa0b1c"


def example(
    *,
    classes: int = 6,
    rungs: int = 12,
    measured: bool = True,
    hostile: bool = False,
    long_names: bool = False,
    test_items: int = 1_200,
    answer: str = "no",
) -> Comparison:
    """A comparison of the `rungs` highest rungs of a ladder on `classes` classes."""
    chance = random.Random(7)  # noqa: S311 - made-up numbers
    labels = _labels(classes, hostile=hostile, long_names=long_names)
    ladder = LADDER[-rungs:] if rungs < len(LADDER) else LADDER
    results = [_rung(row, labels, chance, test_items, measured=measured, long_names=long_names) for row in ladder]
    reference = results[-2] if len(results) > 1 else results[-1]
    chosen = next((result for result in results if "linear" in result.name), results[0])
    return Comparison(
        rung_version="0.1.0",
        task="classification",
        command="rung compare tickets.csv --target queue --minutes 10 --out comparison --llm folder:minilm",
        created="2026-11-22T09:30:00+00:00",
        seconds=603.2,
        machine="2 cores, AMD EPYC, 24 GB of memory, no accelerator, Linux, Python 3.12",
        settings={
            "minutes": 10,
            "seed": 0,
            "seeds": 3,
            "metric": "accuracy",
            "margin": 0.01,
            "reference": reference.name,
        },
        data=_data(labels, test_items, hostile=hostile),
        rungs=results,
        pairs=[_pair(result, reference, test_items) for result in results if result is not reference],
        verdict=_verdict(answer, chosen.name, reference.name),
        pareto={
            "quality_latency": [
                r.name for r in results if r.name in {"majority", "naive-bayes", "feedforward", "linear"}
            ]
            + [reference.name],
            "quality_size": [r.name for r in results if r.name in {"majority", "naive-bayes", "linear"}]
            + [reference.name],
            "quality_cost": [],
        },
        disagreements=_disagreements(labels, chance, hostile=hostile),
        not_measured=["energy: this machine has no readable energy counter (/sys/class/powercap is not there)"],
    )


def _labels(classes: int, *, hostile: bool, long_names: bool) -> list[str]:
    words = ["billing", "delivery", "returns", "account", "technical", "praise", "warranty", "press"]
    labels = [words[i] if i < len(words) else f"intent_{i:03d}" for i in range(classes)]
    if long_names:
        labels = [
            f"{label} · a category whose name somebody wrote out in full, with all its conditions" for label in labels
        ]
    if hostile:
        labels[0] = HOSTILE
    return labels


def _record(name: str, value: float | None, unit: str, n: int, spread: float | None = None, **extra: Any) -> Record:
    interval = None
    if spread is not None and value is not None:
        interval = Interval(low=value - spread, high=value + spread, method="wilson")
    reason = None if value is not None else extra.pop("reason", "left out in this run")
    extra.pop("reason", None)
    return Record(name=name, value=value, unit=unit, n=n, interval=interval, not_measured=reason, **extra)


def _rung(
    row: tuple[str, str, int, float, float, int, float, int],
    labels: list[str],
    chance: random.Random,
    n: int,
    *,
    measured: bool,
    long_names: bool,
) -> RungResult:
    name, description, height, accuracy, latency, stored, train, parameters = row
    if long_names:
        name = f"folder:/srv/models/department/experiments/2026/{name}-finetuned-on-all-tickets-v3"
    endpoint = parameters == 0
    spread = 1.96 * math.sqrt(accuracy * (1 - accuracy) / n)

    def maybe(metric: str, value: float | None, unit: str, spread: float | None = None, reason: str = "") -> Record:
        known = value if measured else None
        return _record(metric, known, unit, n, spread, reason=reason or "switched off by --quick")

    gone = "the endpoint does not tell"
    metrics = [
        maybe("accuracy", accuracy, "share", spread),
        maybe("macro_f1", accuracy - 0.02, "share", spread * 1.2),
        maybe("mcc", accuracy - 0.05, "coefficient"),
        maybe("auroc", min(0.995, accuracy + 0.06), "area"),
        maybe("log_loss", 1.1 * (1 - accuracy) * 3, "nats"),
        maybe("brier", (1 - accuracy) * 1.4, ""),
        maybe("ece", 0.4 * (1 - accuracy), "share"),
        maybe("temperature", 1.13, ""),
        maybe("aurc", 0.3 * (1 - accuracy), ""),
        maybe("train_seconds", None if endpoint else train, "s", reason="nothing is trained"),
        maybe("train_cpu_seconds", None if endpoint else train * 1.8, "s", reason="nothing is trained"),
        maybe("parameters", None if endpoint else parameters, "parameters", reason=gone),
        maybe("bytes_on_disk", None if endpoint else stored, "bytes", reason=gone),
        maybe("peak_memory", None if endpoint else 2.1e8 + 8 * stored, "bytes", reason=gone),
        maybe("latency_batch1_p50", latency, "s"),
        maybe("latency_batch1_p95", latency * 1.4, "s"),
        maybe("latency_batch32_p50", latency * 9, "s"),
        maybe("latency_batch32_p95", latency * 13, "s"),
        maybe("load_seconds", None if endpoint else 0.01 + stored / 1e9, "s", reason=gone),
        maybe("items_per_second", 3.2 / latency, "items/s"),
        maybe("energy", None, "J per 1,000 items", reason="this machine has no readable energy counter"),
        maybe("cost_per_1000", 0.42 if endpoint else None, "EUR", reason="no price was given"),
    ]
    return RungResult(
        name=name,
        description=description,
        height=height,
        folder=f"comparison/rungs/{name.replace('/', '_').replace(':', '_')}",
        is_pretrained_language_model=height == 9,
        finished=name != "encoder",
        note="stopped by its share of the minutes after 4.2 epochs" if name == "encoder" else "",
        chosen={"learning_rate": 0.002, "epochs": 6} if height > 2 else {},
        metrics=metrics,
        seeds=[{"seed": seed, "value": round(accuracy + chance.gauss(0, 0.004), 4)} for seed in range(3)]
        if measured
        else [],
        details=_details(labels, accuracy, chance, n, endpoint=endpoint) if measured else {},
        learning_curve=_curve(accuracy, chance, wanted=measured and height in {1, 2, 4, 7}),
    )


def _curve(accuracy: float, chance: random.Random, *, wanted: bool) -> LearningCurve | None:
    if not wanted:
        return None
    floor, scale, power = 0.9 * (1 - accuracy), 1.9, 0.55
    sizes = [50, 100, 200, 500, 1000, 2000, 4800]
    points = [
        CurvePoint(
            items=n, seed=s, error=min(0.95, max(0.01, floor + scale * n**-power + chance.gauss(0, 1.1 / n**0.6)))
        )
        for n in sizes
        for s in range(3)
    ]
    at = [50 * (19200 / 50) ** (i / 24) for i in range(25)]
    fitted = [floor + scale * n**-power for n in at]
    fit = CurveFit(
        floor=floor, scale=scale, power=power, at=at, fitted=fitted,
        low=[f - 0.3 / n**0.35 for f, n in zip(fitted, at, strict=True)],
        high=[f + 0.3 / n**0.35 for f, n in zip(fitted, at, strict=True)],
    )  # fmt: skip
    needed = 2_400 if accuracy > 0.9 else None
    return LearningCurve(
        points=points,
        fit=fit,
        labels_needed=needed,
        labels_needed_interval=(1_700, 3_900) if needed else None,
        sentence="From about 2,400 labels it is not inferior to the best."
        if needed
        else "It stays inferior to the best.",
    )


def _details(labels: list[str], accuracy: float, chance: random.Random, n: int, *, endpoint: bool) -> dict[str, Any]:
    k = len(labels)
    confusion = [[0] * k for _ in range(k)]
    for _ in range(n):
        truth = min(int(chance.expovariate(2.5 / k)), k - 1)
        said = truth if chance.random() < accuracy else chance.randrange(k)
        confusion[truth][said] += 1
    per_class = []
    for i, label in enumerate(labels):
        support = sum(confusion[i])
        called = sum(row[i] for row in confusion)
        recall = confusion[i][i] / support if support else 0.0
        precision = confusion[i][i] / called if called else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        per_class.append({"label": label, "precision": precision, "recall": recall, "f1": f1, "support": support})
    details: dict[str, Any] = {
        "labels": labels,
        "confusion": confusion,
        "per_class": per_class,
        "reliability": [
            {
                "low": i / 10, "high": (i + 1) / 10, "confidence": i / 10 + 0.05,
                "accuracy": max(0.0, min(1.0, i / 10 + 0.03 + chance.gauss(0, 0.03))), "count": 20 + 30 * i,
            }
            for i in range(2, 10)
        ],
        "risk_coverage": [{"coverage": c / 100, "risk": (1 - accuracy) * (c / 100) ** 1.6} for c in range(1, 101)],
        "groups": [
            {"group": "web form", "n": 640, "accuracy": accuracy + 0.01, "low": accuracy - 0.02,
             "high": accuracy + 0.03, "suppressed": False},
            {"group": "e-mail", "n": 480, "accuracy": accuracy - 0.02, "low": accuracy - 0.06, "high": accuracy + 0.02,
             "suppressed": False},
            {"group": "fax", "n": 12, "accuracy": None, "low": None, "high": None, "suppressed": True},
        ],
        "determinism": {
            "same_process": {"exact_rate": 1.0, "flip_rate": 0.0, "max_difference": 0.0},
            "fresh_process": {"exact_rate": 1.0, "flip_rate": 0.0, "max_difference": 0.0},
            "batch_size": {"exact_rate": 0.31, "flip_rate": 0.0, "max_difference": 2.4e-7},
            "threads": None if endpoint else {"exact_rate": 1.0, "flip_rate": 0.0, "max_difference": 0.0},
        },
    }  # fmt: skip
    if endpoint:
        details["prompting"] = {
            "data_leave_machine": True, "cost_per_1000": 0.42, "currency": "EUR", "parse_failures": 7,
            "variation": [{"shots": 0, "scoring": "parsed", "mean": 0.9, "template_sd": 0.013}],
            "templates": [{"template": f"template {i}", "accuracy": 0.9 + i / 100, "failed": i} for i in range(3)],
        }  # fmt: skip
    return details


def _pair(result: RungResult, reference: RungResult, n: int) -> PairResult:
    def value(rung: RungResult) -> float:
        return next((r.value for r in rung.metrics if r.name == "accuracy" and r.value is not None), 0.0)

    known = any(r.name == "accuracy" and r.value is not None for r in result.metrics)
    difference = value(result) - value(reference)
    spread = 1.96 * math.sqrt(0.1 / n)
    low, high = difference - spread, difference + spread
    record = Record(
        name="accuracy_difference",
        value=difference if known else None,
        unit="share",
        n=n,
        interval=Interval(low=low, high=high, method="paired bootstrap, two-level") if known else None,
        not_measured=None if known else "the rung has no predictions",
    )
    return PairResult(
        rung=result.name,
        reference=reference.name,
        difference=record,
        mcnemar_p=min(1.0, math.exp(-abs(difference) * 150)) if known else None,
        holm_p=min(1.0, 4 * math.exp(-abs(difference) * 150)) if known else None,
        discordant=(int(0.05 * n), int(0.05 * n - difference * n)) if known else (0, 0),
        probability_better=0.5 + max(-0.5, min(0.5, difference * 20)) if known else None,
        non_inferior=known and low > -0.01,
        superior=known and low > 0,
        reference_superior=known and high < -0.01,
    )


def _verdict(answer: str, chosen: str, reference: str) -> Verdict:
    sentences = {
        "no": "No, you do not need a large language model here: the linear rung is enough.",
        "yes": "Yes: the fine-tuned model is better than every small rung by more than the margin.",
        "more labels": "Not with this much data: with about 2,400 labels the linear rung would do.",
        "not decided": "Not decided: about 2,700 more test items would decide it.",
    }
    return Verdict(
        answer=answer,
        sentence=sentences[answer],
        reasons=[
            "The linear rung is right on 90.3 % of 1,200 test items, the reference on 91.5 %.",
            "The difference is −1.2 points; its 95 % interval reaches from −3.0 to +0.6 points.",
            "The margin of 1 point was set before the run.",
        ],
        chosen=chosen,
        reference=reference,
        margin=0.01,
        labels_needed=2_400 if answer == "more labels" else None,
        items_needed=2_700 if answer == "not decided" else None,
        about_pretrained=True,
    )


def _data(labels: list[str], n: int, *, hostile: bool) -> DataFound:
    share = [math.exp(-2.5 * i / len(labels)) for i in range(len(labels))]
    total, sizes = sum(share), {"train": 4_800, "valid": 1_200, "test": n}
    examples = [HOSTILE if hostile else "Where is my parcel? I ordered it two weeks ago."]
    return DataFound(
        files=["tickets.csv"],
        sha256=SHA,
        target="queue",
        text_columns=["subject", "body"],
        guessed=[
            "The text is in the columns 'subject' and 'body': they hold the longest strings.",
            "Rows were split at random within each label, because no group or time column was named.",
        ],
        rows=7_312,
        rejected={"empty text": 9, "no label": 3},
        classes=[
            {"label": label} | {part: round(size * s / total) for part, size in sizes.items()}
            for label, s in zip(labels, share, strict=True)
        ],
        profile=["Half of the texts have at most 212 characters.", "The most frequent class holds 37 % of the rows."],
        split={"method": "stratified, seed 0", "sha256": SHA[::-1], "train": 4_800, "valid": 1_200, "test": n},
        gates=[
            {"name": "leaks between train and test", "passed": True, "count": 14, "share": 14 / n,
             "sentence": "14 test items (1.2 %) also stand in the training part; they are scored apart.",
             "examples": examples},
            {"name": "conflicting labels", "passed": False, "count": 31, "share": 0.004,
             "sentence": "31 texts carry more than one label.", "examples": examples},
            {"name": "class counts", "passed": True, "count": 0, "share": 0.0,
             "sentence": "Every class has at least 20 training items.", "examples": []},
        ],
        power={
            "n": n, "margin": 0.01, "detectable_difference": 0.026, "needed_for_margin": 7_847,
            "sentence": "With 1,200 test items a difference of 2.6 points can be seen with 80 % power; the margin of "
            "1 point would need about 7,847.",
        },
    )  # fmt: skip


def _disagreements(labels: list[str], chance: random.Random, *, hostile: bool) -> list[Disagreement]:
    texts = [
        "I was charged twice for the same order and would like one payment back.",
        "The parcel came, but the box was open and the charger is missing.",
        "Since the update the app closes as soon as I open the settings page.",
        "شكرا جزيلا، وصل الطرد في الموعد",
    ]
    if hostile:
        texts += [HOSTILE * 3, "x" * 100_000, "<img src=http://example.org/a.png onerror=alert(1)>"]
    found = []
    for index in range(64):
        truth, other = chance.choice(labels), chance.choice(labels)
        right = index % 2 == 0
        found.append(
            Disagreement(
                id=f"{index:016x}", text=texts[index % len(texts)], label=truth,
                small=truth if right else other, reference=other if right else truth,
            )
        )  # fmt: skip
    return found
