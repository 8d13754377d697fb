"""The TREC ladder in one command: six question classes, the given test file, a verdict in under five minutes.

    python bench/trec_ladder.py [DATA] [--out DIR] [--minutes 4.5] [--curves linear]

Naive Bayes, linear, feed-forward, CNN and LSTM, three seeds each, through `rung.compare`. DATA is the folder of the
shared data sets. A learning curve costs a rung about as much again as its fits; only the linear rung has one here.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import rung

RUNGS = ("naive-bayes", "linear", "feedforward", "cnn", "lstm")


def main() -> None:
    """Print wall time, a table and the verdict, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=4.5)
    parser.add_argument("--curves", default="linear")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        found = rung.compare(
            [options.data / "trec" / "train.jsonl"],
            test=[options.data / "trec" / "test.jsonl"],
            out=options.out or Path(scratch) / "trec",
            target="label",
            text=["text"],
            rungs=RUNGS,
            seeds=3,
            curves=tuple(name for name in options.curves.split(",") if name),
            minutes=options.minutes,
        )
        seconds = time.monotonic() - began
    accuracies = {}
    for one in found.rungs:
        fits = ", ".join(f"{100 * seed['value']:.1f}" for seed in one.seeds)
        accuracies[one.name] = [seed["value"] for seed in one.seeds]
        print(f"{one.name:14}{fits:24}{one.note}")
    print(f"{seconds:.0f} s on {os.cpu_count()} processors")
    print(found.verdict.sentence)
    print(json.dumps({"seconds": round(seconds, 1), "accuracies": accuracies, "answer": found.verdict.answer}))


if __name__ == "__main__":
    main()
