"""Few labels a class: the ways of tuning MiniLM against SetFit's recipe, over draws of the labels.

    python bench/few_shot.py                                          TREC, k = 8, 32, 64, 5 draws: an hour
    python bench/few_shot.py --sets sms-spam,sst2,mr                  and two classes
    python bench/few_shot.py --sets trec --shots 8 --draws 3 --ways frozen,setfit

    full     the whole network tuned, as `rung tune --task classify` does
    lora     low-rank additions
    frozen   logistic regression on the states of the untouched body (`--frozen`)
    setfit   Tunstall et al. 2022 (arXiv 2209.11055): the sentence encoder is first tuned on pairs, texts of one class
             to a cosine of 1 and of two classes to 0 (`rung tune --task similarity`), then logistic regression

Nothing is chosen by looking at other labels: a tenth of the k labels a class validates, as in every run. Accuracy is
that of the published test items, at most `--test` of them (the same for all); the interval is Student's t over draws.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from rung.nets.lora import LoraConfig
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.tune import tune
from tune_classifier import Data, read_set

Rows = list[tuple[str, str]]
_WATCHED = 10  # pairs of either kind
_PAIRS_A_TEXT = 20  # SetFit's R: pairs of either kind for each text (section 3.1)


def draw(rows: Rows, shots: int, seed: int) -> Rows:
    """`shots` texts of each class, or all where there are fewer."""
    generator = random.Random(seed)  # noqa: S311 - a sample, not a secret
    by_label: dict[str, Rows] = {}
    for row in rows:
        by_label.setdefault(row[1], []).append(row)
    drawn = (generator.sample(of_label, min(shots, len(of_label))) for _, of_label in sorted(by_label.items()))
    return [row for rows_of_label in drawn for row in rows_of_label]


def write_table(path: Path, rows: Rows) -> Path:
    """A table that `rung tune` reads."""
    lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_pairs(folder: Path, rows: Rows, seed: int) -> dict[str, Path]:
    """SetFit's pairs: as many of one class as of two, `_PAIRS_A_TEXT` a text of either kind.

    `_WATCHED` of either kind are kept out of training, for validation and for the test that every run makes.
    """
    generator = random.Random(seed)  # noqa: S311 - a sample, not a secret
    both = list(combinations(rows, 2))
    kinds = (
        [(a, b, 1.0) for (a, first), (b, second) in both if first == second],
        [(a, b, 0.0) for (a, first), (b, second) in both if first != second],
    )
    parts: dict[str, list[tuple[str, str, float]]] = {"valid": [], "test": [], "train": []}
    for kind in kinds:
        chosen = generator.sample(kind, min(len(kind), _PAIRS_A_TEXT * len(rows)))
        parts["valid"] += chosen[:_WATCHED]
        parts["test"] += chosen[_WATCHED : 2 * _WATCHED]
        parts["train"] += chosen[2 * _WATCHED :]
    for part, pairs in parts.items():
        lines = (json.dumps({"sentence1": a, "sentence2": b, "score": score}) + "\n" for a, b, score in pairs)
        (folder / f"pairs-{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {part: folder / f"pairs-{part}.jsonl" for part in parts}


def tuned(base: str, table: Path, test: Path, out: Path, **wishes: Any) -> float:
    """Accuracy on test items after `rung tune --task classify`."""
    wishes = {"allow_leaks": True, **wishes}
    found = tune(base, [table], task="classify", target="label", text=["text"], test=[test], out=out, **wishes)
    return float(found.record("accuracy").value or 0.0)


def setfit(base: str, rows: Rows, test: Path, folder: Path, *, seed: int, common: dict[str, Any]) -> float:
    """The recipe of SetFit: the encoder on pairs for one epoch, then logistic regression."""
    pairs = write_pairs(folder, rows, seed)
    encoder = tune(
        base,
        [pairs["train"]],
        task="similarity",
        valid=[pairs["valid"]],
        test=[pairs["test"]],
        epochs=1.0,
        out=folder / "encoder",
        seed=seed,
        overrides={"training.loss": "cosine"},
        **common,
    )
    frozen = TuningMethod(kind="frozen")
    table = write_table(folder / "train.jsonl", rows)
    return tuned(str(encoder.run), table, test, folder / "head", method=frozen, seed=seed, **common)


def ways(options: argparse.Namespace) -> dict[str, Callable[[Rows, Path, Path, int], float]]:
    """Each way: from labelled rows, the test table, an empty folder and a seed to accuracy."""
    common = {"threads": options.threads}

    def by(method: TuningMethod, **wishes: Any) -> Callable[[Rows, Path, Path, int], float]:
        def run(rows: Rows, test: Path, folder: Path, seed: int) -> float:
            table = write_table(folder / "train.jsonl", rows)
            return tuned(options.base, table, test, folder / "run", method=method, seed=seed, **common, **wishes)

        return run

    return {
        "full": by(TuningMethod(), epochs=options.epochs),
        "lora": by(TuningMethod(kind="lora", lora=LoraConfig(r=8)), epochs=options.epochs),
        "frozen": by(TuningMethod(kind="frozen")),
        "setfit": lambda rows, test, folder, seed: setfit(options.base, rows, test, folder, seed=seed, common=common),
    }


def main() -> None:
    """Print a line for each set, number of labels and way, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--sets", default="trec")
    parser.add_argument("--shots", default="8,32,64")
    parser.add_argument("--ways", default="full,lora,frozen,setfit")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=20.0, help="of full tuning and of LoRA")
    parser.add_argument("--test", type=int, default=1000, help="the most test items")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    chosen = {name: way for name, way in ways(options).items() if name in options.ways.split(",")}
    found = []
    for name in options.sets.split(","):
        data = read_set(name, options.data)
        random.Random(0).shuffle(data.test)  # noqa: S311 - a sample, not a secret
        for shots in map(int, options.shots.split(",")):
            for way, run in chosen.items():
                cut = Data(data.train, data.test[: options.test])
                found.append({"set": name, "shots": shots, "way": way, **_measured(run, cut, shots, options.draws)})
                one = found[-1]
                spread = f"{100 * one['accuracy']:.1f} +- {100 * one['half_width']:.1f}"
                print(f"{name}, {shots} a class, {way}: {spread}, {one['seconds']:.0f} s a run", flush=True)
    print(json.dumps(found))


def _measured(run: Callable[[Rows, Path, Path, int], float], data: Data, shots: int, draws: int) -> dict[str, Any]:
    """Mean accuracy over draws and half its interval's width."""
    accuracies, began = [], time.perf_counter()
    for seed in range(draws):
        with tempfile.TemporaryDirectory() as scratch:
            table = write_table(Path(scratch) / "test.jsonl", data.test)
            accuracies.append(run(draw(data.train, shots, seed), table, Path(scratch), seed))
    width = 0.0
    if draws > 1:
        width = float(student.ppf(0.975, draws - 1)) * statistics.stdev(accuracies) / draws**0.5
    seconds = (time.perf_counter() - began) / draws
    return {"accuracy": statistics.mean(accuracies), "half_width": width, "draws": accuracies, "seconds": seconds}


if __name__ == "__main__":
    main()
