"""Does a model learn from what its own answers earn?

    python bench/reward_tuning.py            # a few minutes on one core

A small decoder reads sums as text and is tuned by instruction to answer "47 + 18 =" in a chat; then by a careless
teacher, who gives the right answer once and ten too many once, so that it does not know which is wanted.
It is then tuned by rewards (GRPO): it answers sums that it was never shown the answers of, and is told only which of
its answers were right. What is compared is how many sums of a third set it gets right, greedily, before and after. No
sum is in two of the sets; the checkpoint is chosen on a fourth.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from rung.records import Record
from rung.tasks.chat.reward_summary import BEFORE, GAIN, SOLVED
from rung.tasks.language_modelling import train
from rung.tasks.tuning.tune import tune

FIRST, SECOND = range(10, 100), range(1, 20)
"""Sums are of two numbers from these."""
TAUGHT, VALID, TEST = 500, 110, 400
"""Sums with answers; sums to choose the checkpoint by; sums to test on. All others are tried for rewards."""
LINES_OF_DOCUMENT = 15
READ_STEPS = 100
STAGES = {"taught": (40, 3e-3), "careless": (2, 1e-3)}
"""Readings and learning rate of each instruction tuning."""
NET = {
    "tokenizer.kind": "character",
    "net.hidden_size": 64,
    "net.num_hidden_layers": 2,
    "net.num_attention_heads": 4,
    "net.num_key_value_heads": 4,
    "net.head_dim": 16,
    "net.intermediate_size": 192,
    "net.max_position_embeddings": 128,
    "text.near_duplicate_threshold": 1.0,
}
TALKS = {
    "training.batch_size": 8,
    "training.precision": "fp32",
    "measuring.max_tokens": 8,
    "measuring.prompts": 20,
    "data.test_share": 0.05,
}
TRIED = {
    "reward.max_tokens": 8,
    "training.batch_size": 16,
    "training.precision": "fp32",
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def parts_of(folder: Path, seed: int) -> dict[str, Path]:
    """All sums, each in one of the parts, as files: text, conversations, problems."""
    sums = [(one, other) for one in FIRST for other in SECOND]
    random.Random(seed).shuffle(sums)  # noqa: S311 - no secret
    taught, rest = sums[:TAUGHT], sums[TAUGHT:]
    documents = [taught[start : start + LINES_OF_DOCUMENT] for start in range(0, TAUGHT, LINES_OF_DOCUMENT)]
    texts = [{"text": "".join(f"{one} + {other} = {one + other}\n" for one, other in some)} for some in documents]

    def talks(*too_many: int) -> list[dict[str, Any]]:
        return [
            {"prompt": f"{one} + {other} =", "completion": str(one + other + more)}
            for one, other in taught
            for more in too_many
        ]

    problems = [{"prompt": f"{one} + {other} =", "answer": one + other} for one, other in rest]
    return {
        "text": write(folder / "text.jsonl", texts),
        "taught": write(folder / "taught.jsonl", talks(0)),
        "careless": write(folder / "careless.jsonl", talks(0, 10)),
        "valid": write(folder / "valid.jsonl", problems[:VALID]),
        "test": write(folder / "test.jsonl", problems[VALID : VALID + TEST]),
        "train": write(folder / "train.jsonl", problems[VALID + TEST :]),
    }


def told(record: Record) -> dict[str, Any]:
    """A record for the last line."""
    spread = record.interval
    return {"value": record.value, "interval": [spread.low, spread.high] if spread else None, "n": record.n}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50, help="of learning by rewards")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of tuning by rewards")
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = parts_of(folder, wanted.seed)
        read = train(
            [files["text"]],
            steps=READ_STEPS,
            out=folder / "read",
            seed=wanted.seed,
            threads=1,
            overrides={**NET, "training.batch_size": 16, "training.learning_rate": 3e-3},
        )
        print(f"{read.parameters:,} parameters; read in {time.monotonic() - began:.0f} s")
        base = folder / "read"
        for stage, (epochs, rate) in STAGES.items():
            chat = tune(
                base,
                [files[stage]],
                task="chat",
                epochs=epochs,
                out=folder / f"{stage}-chat",
                seed=wanted.seed,
                threads=1,
                overrides={**TALKS, "training.learning_rate": rate},
            )
            print("\n".join(chat.lines()))
            base = chat.run
        tuned = tune(
            base,
            [files["train"]],
            task="reward",
            valid=[files["valid"]],
            test=[files["test"]],
            steps=wanted.steps,
            out=folder / "rewarded",
            seed=wanted.seed,
            threads=1,
            overrides={**TRIED, **dict(one.split("=", 1) for one in wanted.set)},
        )
        print("\n".join(tuned.lines()))
    print(
        json.dumps(
            {
                "parameters": read.parameters,
                "before": told(tuned.record(BEFORE)),
                "after": told(tuned.record(SOLVED)),
                "difference": told(tuned.record(GAIN)),
                "steps": tuned.steps,
                "seconds": round(time.monotonic() - began),
            }
        )
    )


if __name__ == "__main__":
    main()
