"""How long the gates take on 50,000 short texts: reading, profile, duplicates, split, leaks; and tables of predictions.

    python bench/labelled_data.py [ITEMS]

Texts are made (words by Zipf's law, 5 to 30 a text, one in twenty nearly a copy of another), so no data set is needed.
Medians over three rounds, in seconds; the last line is one JSON object.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars

from rung.data.label_split import make_split
from rung.data.labelled_reading import read_labelled
from rung.data.leaks import find_leaks, without_items
from rung.data.profile import all_findings, profile
from rung.data.table_stream import annotate_table

ROUNDS = 3


def made_table(path: Path, items: int) -> None:
    """Write a table of `items` rows with columns text and label."""
    chance = np.random.default_rng(0)
    texts: list[str] = []
    for length in chance.integers(5, 31, items).tolist():
        words = [f"w{word}" for word in np.minimum(chance.zipf(1.3, length), 50_000)]
        near = chance.random() < 0.05 and texts
        texts.append(f"{texts[int(chance.integers(len(texts)))]} {words[0]}" if near else " ".join(words))
    labels = chance.integers(0, 10, items)
    polars.DataFrame({"text": texts, "label": [f"class {label}" for label in labels]}).write_csv(path)


def main(items: int) -> None:
    """Time each step `ROUNDS` times."""
    seconds: dict[str, list[float]] = defaultdict(list)

    def timed(name: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = call(*arguments, **options)
        seconds[name].append(time.perf_counter() - start)
        return result

    def nothing(texts: list[str]) -> dict[str, list[Any]]:
        return {"prediction": ["x"] * len(texts), "probability": [0.5] * len(texts)}

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        made_table(path, items)
        new = {"prediction": str, "probability": float}
        for _ in range(ROUNDS):
            found = timed("read", read_labelled, path).items
            timed("profile", profile, found)
            timed("duplicates and conflicts", all_findings, found)
            split = timed("split", make_split, found, seed=0)
            train, test = found.take(split.train), found.take(split.test)
            timed("leaks", find_leaks, train, test)
            timed("pretraining text without test items", without_items, train.texts, test.texts)
            for kind in ("csv", "parquet"):
                options = {"text_columns": ["text"], "new_columns": new, "annotate": nothing}
                timed(f"table to {kind}", annotate_table, path, Path(folder, f"out.{kind}"), **options)
    medians = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:40} {value:8.3f} s")
    print(json.dumps({"items": items, "seconds": medians}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
