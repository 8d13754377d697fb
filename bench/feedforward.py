"""The feed-forward rung beside the official fastText package (`pip install fasttext`): accuracy, speed, prediction.

    python bench/feedforward.py [DATA] [--sets trec,sst2,mr,sms] [--rounds 3]

Both have 16 dimensions, words and word pairs and 2^21 buckets, and stop by the same validation items: ours early,
fastText by the best of 12 settings (learning rate and epochs). Epochs are timed without early stopping, alternately:
the difference of a run with 42 and one with 2 epochs, so that reading and building cancel out. fastText has a process
of its own: after training with torch in the same one it stops with "Encountered NaN".
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Any

import fasttext
import numpy as np

from published_baselines import cuts, held_out, task_of
from rung.data.labelled import LabelledItems
from rung.data.ngrams import words_of
from rung.progress import SILENT
from rung.tasks.classification.feedforward import FeedForwardRung, load
from rung.tasks.classification.task import ClassificationTask

SHORT, LONG = 2, 42
COMMON = {"dim": 16, "wordNgrams": 2, "bucket": 1 << 21, "verbose": 0}


def task_for(data: Path, name: str) -> ClassificationTask:
    """The task; MR, which has no split of its own, is its first fold."""
    train, valid, test = next(cuts(data, name))
    if not valid[0]:
        train, valid = held_out(train, 0.1)
    return task_of((train, valid, test))


def write(items: LabelledItems, path: Path) -> str:
    """The items as fastText reads them, with the same words."""
    rows = zip(items.texts, items.labels.tolist(), strict=True)
    path.write_text("".join(f"__label__{y} {' '.join(words_of(text))}\n" for text, y in rows), encoding="utf-8")
    return str(path)


def ours(task: ClassificationTask, folder: Path, *, seed: int = 0, **changes: Any) -> float:
    """Seconds of a fit."""
    rung = FeedForwardRung()
    plan = {**rung.plan(task, None, seed=seed), **changes}
    began = time.perf_counter()
    everything = np.arange(len(task.items["train"]))
    rung.fit(task, plan, items=everything, seed=seed, folder=folder, progress=SILENT)
    return time.perf_counter() - began


def accuracies(task: ClassificationTask, folder: Path, seeds: int) -> dict[str, float]:
    """Test accuracy in per cent: ours as a mean over seeds, fastText's at its best setting on validation items."""
    test, found = task.items["test"], []
    for seed in range(seeds):
        ours(task, folder / "rung", seed=seed)
        found.append(100 * float((load(folder / "rung").predict(test.texts).labels == test.labels).mean()))
    files = {part: write(items, folder / part) for part, items in task.items.items()}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as elsewhere:  # beside torch it meets NaN
        tried = [
            elsewhere.submit(fasttext_accuracies, files, rate, epochs).result()
            for rate in (0.1, 0.25, 0.5, 1.0)
            for epochs in (5, 10, 25)
        ]
    return {"rung": round(mean(found), 2), "fasttext": round(max(tried)[1], 2)}


def fasttext_accuracies(files: dict[str, str], rate: float, epochs: int) -> tuple[float, float]:
    """Accuracy of fastText on validation and, in per cent, on test items."""
    model = fasttext.train_supervised(files["train"], lr=rate, epoch=epochs, thread=1, seed=0, **COMMON)
    return model.test(files["valid"])[1], 100 * model.test(files["test"])[1]


def fasttext_seconds(file: str, epochs: int, threads: int) -> float:
    """Seconds of training with fastText."""
    began = time.perf_counter()
    fasttext.train_supervised(file, lr=0.1, epoch=epochs, thread=threads, **COMMON)
    return time.perf_counter() - began


def seconds_per_epoch(task: ClassificationTask, folder: Path, threads: int, rounds: int) -> dict[str, float]:
    """Medians over alternating rounds, and their ratio (above 1: ours is faster)."""
    empty = task.items["valid"].take(np.empty(0, np.int64))
    bare = ClassificationTask({**task.items, "valid": empty}, threads=threads)
    file = write(task.items["train"], folder / "train")
    ours(bare, folder / "rung", epochs=SHORT)  # what happens once in a process is not timed
    mine, theirs = [], []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as elsewhere:
        for _ in range(rounds):
            spent = {epochs: ours(bare, folder / "rung", epochs=epochs) for epochs in (SHORT, LONG)}
            mine.append((spent[LONG] - spent[SHORT]) / (LONG - SHORT))
            spent = {epochs: elsewhere.submit(fasttext_seconds, file, epochs, threads).result() for epochs in spent}
            theirs.append((spent[LONG] - spent[SHORT]) / (LONG - SHORT))
    return {"rung": median(mine), "fasttext": median(theirs), "ratio": median(theirs) / median(mine)}


def texts_per_second(task: ClassificationTask, folder: Path, rounds: int) -> float:
    """Prediction of 50,000 short texts, tokenisation included."""
    ours(task, folder / "rung", epochs=1)
    predictor = load(folder / "rung")
    texts = (task.items["train"].texts * (50_000 // len(task.items["train"]) + 1))[:50_000]
    spent = []
    for _ in range(rounds):
        began = time.perf_counter()
        predictor.predict(texts, batch_size=1024)
        spent.append(time.perf_counter() - began)
    return len(texts) / median(spent)


def main() -> None:
    """Print a table, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--sets", default="trec,sst2,mr,sms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["accuracy", "speed", "prediction"])
    options = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    for name in options.sets.split(","):
        task, results[name] = task_for(options.data, name), {}
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            if options.only in (None, "accuracy"):
                results[name]["accuracy"] = accuracies(task, folder, options.rounds)
            if options.only in (None, "speed"):
                for threads in (1, 2):
                    timed = seconds_per_epoch(task, folder, threads, options.rounds)
                    results[name][f"seconds_per_epoch_{threads}_threads"] = timed
            if options.only in (None, "prediction"):
                results[name]["texts_per_second"] = round(texts_per_second(task, folder, options.rounds))
        print(name, json.dumps(results[name]), flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
