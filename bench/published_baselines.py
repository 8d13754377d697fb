"""The counting rungs on data sets with published or independently measured accuracies, as one table.

    python bench/published_baselines.py [DATA] [--sets mr,trec,...]

DATA is the folder of the shared data sets. MR is ten-fold; SMS and SpamAssassin are cut 80/20 with seed 0. Naive Bayes
has words only. The linear rung chooses among two candidates on validation items: the given ones, else a tenth of the
training items.
"""

from __future__ import annotations

import argparse
import json
import lzma
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedKFold, train_test_split

from rung.data.labelled import LabelledItems, item_ids
from rung.progress import SILENT
from rung.tasks.classification.counting import LinearRung, NaiveBayesRung, load
from rung.tasks.classification.task import ClassificationTask
from rung.tasks.task import Plan, Rung

Pairs = tuple[list[str], list[str]]
Cut = tuple[Pairs, Pairs, Pairs]
REFERENCE = {
    ("mr", "naive-bayes"): "77.9 (Wang and Manning 2012)",
    ("trec", "naive-bayes"): "74.6 (scikit-learn)",
    ("sst2", "naive-bayes"): "82.0 (scikit-learn)",
    ("trec", "linear"): "89.0 (scikit-learn)",
    ("sst2", "linear"): "81.0 (scikit-learn)",
    ("mr", "linear"): "77.6 (scikit-learn)",
    ("imdb", "linear"): "at least 90",
    ("clinc150", "linear"): "at least 90; SVM 91.0 (Larson et al. 2019)",
    ("spamassassin", "linear"): "at least 98.5",
}
LINEAR: Plan = {"candidates": [{"ngrams": 2, "C": 10.0}, {"ngrams": 1, "C": 10.0}], "max_iterations": 1000}


def read(path: Path) -> Pairs:
    """Texts and labels of a JSON Lines file, compressed or not."""
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row["text"] for row in rows], [str(row["label"]) for row in rows]


def part(pairs: Pairs, chosen: Sequence[int]) -> Pairs:
    """The chosen rows."""
    return [pairs[0][i] for i in chosen], [pairs[1][i] for i in chosen]


def held_out(pairs: Pairs, share: float) -> tuple[Pairs, Pairs]:
    """Two parts, the second one `share` of all, stratified, with seed 0."""
    first, second = train_test_split(range(len(pairs[0])), test_size=share, stratify=pairs[1], random_state=0)
    return part(pairs, first), part(pairs, second)


def cuts(data: Path, name: str) -> Iterator[Cut]:
    """(train, valid, test) of a data set, once or once a fold."""
    if name == "sst2":
        train, valid, test = (read(data / "sst" / f"sst2.{which}.jsonl") for which in ("train", "dev", "test"))
        yield train, valid, test
    elif name == "clinc150":
        train, valid, test = (read(data / name / f"{which}.jsonl") for which in ("train", "val", "test"))
        yield train, valid, test
    elif name in ("trec", "imdb"):
        ending = ".jsonl" if name == "trec" else ".jsonl.xz"
        train, test = (read(data / name / f"{which}{ending}") for which in ("train", "test"))
        yield *held_out(train, 0.1), test
    elif name == "mr":
        every = read(data / "mr" / "all.jsonl")
        for train_rows, test_rows in StratifiedKFold(10, shuffle=True, random_state=0).split(*every):
            yield part(every, train_rows), ([], []), part(every, test_rows)
    elif name == "spamassassin":
        train, test = held_out(read(data / name / "emails.jsonl.xz"), 0.2)
        yield *held_out(train, 0.1), test
    else:
        lines = (data / "sms-spam" / "SMSSpamCollection.tsv").read_text(encoding="utf-8").strip().split("\n")
        rows = [line.split("\t", 1) for line in lines]
        train, test = held_out(([row[1] for row in rows], [row[0] for row in rows]), 0.2)
        yield *held_out(train, 0.1), test


def task_of(cut: Cut) -> ClassificationTask:
    """The task of one cut."""
    names = tuple(sorted(set(cut[0][1])))
    parts = [
        LabelledItems(item_ids(*pairs), pairs[0], np.array([names.index(y) for y in pairs[1]], np.int64), names)
        for pairs in cut
    ]
    return ClassificationTask(dict(zip(("train", "valid", "test"), parts, strict=True)))  # type: ignore[arg-type]


def measure(rung: Rung, plan: Plan, tasks: Sequence[ClassificationTask]) -> tuple[float, float]:
    """Accuracy in per cent over the test items of all cuts, and seconds of all fits."""
    right, count, seconds = 0, 0, 0.0
    for task in tasks:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / rung.name
            began = time.perf_counter()
            everything = np.arange(len(task.items["train"]))
            report = rung.fit(task, plan, items=everything, seed=0, folder=folder, progress=SILENT)
            seconds += time.perf_counter() - began
            if report.note:
                print(f"  {rung.name}: {report.note}")
            test = task.items["test"]
            right += int((load(folder).predict(test.texts).labels == test.labels).sum())
            count += len(test)
    return 100 * right / count, seconds


def main() -> None:
    """Print the table, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--sets", default="mr,trec,sst2,sms,clinc150,spamassassin,imdb")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    for name in options.sets.split(","):
        tasks = [task_of(cut) for cut in cuts(options.data, name)]
        for rung, plan in ((NaiveBayesRung(), {"ngrams": [1]}), (LinearRung(), LINEAR)):
            if name == "mr" and rung.name == "linear":
                plan = {**LINEAR, "candidates": LINEAR["candidates"][:1]}  # noqa: PLW2901 - no validation items there
            accuracy, seconds = measure(rung, plan, tasks)
            results.setdefault(name, {})[rung.name] = round(accuracy, 2)
            reference = REFERENCE.get((name, rung.name), "")
            print(f"{name:14}{rung.name:14}{accuracy:8.2f} %{seconds:8.1f} s   {reference}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
