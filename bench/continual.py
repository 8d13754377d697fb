"""Carrying a language model on with new text: what is gained and lost, with and without replay and a pull back.

    python bench/continual.py DATA [--steps 800] [--carried-steps 250] [--threads 2] [--out DIR]

DATA is the folder of shared data sets. A decoder of 1.2 million parameters is trained on English novels (the first
authors by name, about 12 MB), then carried on with Shakespeare's plays: replay 0, 0.1 and 0.25, and a pull of 1 and 10
without replay, with equally many steps and no clock. Prints the change in bits per byte of held-out documents.
"""

from __future__ import annotations

import argparse
import json
import lzma
import tempfile
from pathlib import Path
from typing import Any

import torch

from rung.tasks.continuing.training import ContinuedSummary
from rung.tasks.language_modelling import carry_on, train

AUTHORS = 6
SHAPE: dict[str, Any] = {
    "tokenizer.vocab_size": 2048,
    "net.hidden_size": 128,
    "net.num_hidden_layers": 4,
    "net.num_attention_heads": 4,
    "net.max_position_embeddings": 128,
    "training.batch_size": 16,
}
VARIANTS: tuple[tuple[str, dict[str, float]], ...] = (
    ("nothing", {}),
    ("replay 0.1", {"replay": 0.1}),
    ("replay 0.25", {"replay": 0.25}),
    ("pull 1", {"penalty": 1.0}),
    ("pull 10", {"penalty": 10.0}),
)


def novels(data: Path, folder: Path) -> Path:
    """The novels of the first authors, one a line."""
    with lzma.open(data / "english-novels" / "train.jsonl.xz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    chosen = sorted({row["author"] for row in rows})[:AUTHORS]
    path = folder / "novels.jsonl"
    lines = [json.dumps({"text": row["text"]}) + "\n" for row in rows if row["author"] in chosen]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def measured(summary: ContinuedSummary) -> dict[str, Any]:
    """The figures of one variant."""
    found: dict[str, Any] = {"distance": summary.distance}
    for change in summary.changes:
        spread = change.change.interval
        found[change.name] = {
            "before": change.before.value,
            "after": change.after.value,
            "change": change.change.value,
            "interval": None if spread is None else [spread.low, spread.high],
            "documents": change.change.n,
        }
    return found


def main() -> None:
    """Train, carry on, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--carried-steps", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = options.out or Path(tempfile.mkdtemp(prefix="continual-"))
    folder.mkdir(parents=True, exist_ok=True)
    old = novels(options.data, folder)
    base = train([old], steps=options.steps, out=folder / "base", overrides=SHAPE, threads=options.threads)
    new = [options.data / "tinyshakespeare" / "input.txt"]
    results: dict[str, Any] = {}
    drift: dict[str, Any] = {}
    for name, asked in VARIANTS:
        out = folder / name.replace(" ", "-")
        summary = carry_on(base.run, new, out=out, steps=options.carried_steps, threads=options.threads, **asked)
        assert isinstance(summary, ContinuedSummary)
        results[name] = {**measured(summary), "steps": summary.steps}
        drift = {} if summary.drift is None else summary.drift.to_json()
        rows = ", ".join(
            f"{text} {row['before']:.3f} -> {row['after']:.3f} ({row['change']:+.3f}, {row['interval']})"
            for text, row in results[name].items()
            if isinstance(row, dict)
        )
        print(f"{name:12} {summary.steps:6,} steps: {rows}; weights moved by {summary.distance:.1%}", flush=True)
    print(json.dumps({"base": base.to_json()["bits_per_byte"], "variants": results, "drift": drift}))


if __name__ == "__main__":
    main()
