"""Tiny Shakespeare, last 10 % held out: bits per byte after some minutes, recomputed with transformers.

    python bench/tiny_shakespeare.py --minutes 3          # the figure of nanoGPT's README, on this machine
    python bench/tiny_shakespeare.py --minutes 3 --seeds 0 1 2

The planner gets the text and the minutes and nothing else. The figure is computed by transformers from the run folder:
the validation text is tokenised as one string and read in windows of the model's context that advance by half a
context, every token scored once; bytes are those of the text. nanoGPT (README): 1.88 nats per character = 2.71 bits per
byte in about 3 minutes on a CPU, 1.4697 = 2.12 on a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEXT = Path(os.environ.get("RUNG_DATA", "../shared/data")) / "tinyshakespeare" / "input.txt"


def main() -> None:
    """Train once per seed and print the table; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="passed on to rung train")
    arguments = parser.parse_args()
    rows = [run(arguments.minutes, seed, arguments.set) for seed in arguments.seeds]
    for row in rows:
        print(
            f"seed {row['seed']}: {row['bits_per_byte']:.4f} bits per byte by transformers, {row['rung']:.4f} by rung, "
            f"{row['seconds']:.0f} s, {row['parameters']:,} parameters, {row['tokens_per_second']:,.0f} tokens/s"
        )
    print(json.dumps({"bench": "tiny_shakespeare", "minutes": arguments.minutes, "rows": rows}))


def run(minutes: float, seed: int, settings: list[str]) -> dict[str, float]:
    """One training run by the command line, and its figure."""
    text = TEXT.read_text(encoding="utf-8")
    cut = int(len(text) * 0.9)
    with tempfile.TemporaryDirectory() as folder:
        train, valid, out = (Path(folder) / name for name in ("train.txt", "valid.txt", "run"))
        train.write_text(text[:cut], encoding="utf-8")
        valid.write_text(text[cut:], encoding="utf-8")
        command = [sys.executable, "-m", "rung", "train", str(train), "--valid", str(valid), "--out", str(out)]
        command += ["--minutes", str(minutes), "--seed", str(seed), "--json"]
        command += [part for setting in settings for part in ("--set", setting)]
        began = time.monotonic()
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"RUNG_CACHE": folder}
        )
        seconds = time.monotonic() - began
        summary = json.loads(done.stdout.splitlines()[-1])
        return {
            "seed": seed,
            "bits_per_byte": by_transformers(out, text[cut:]),
            "rung": summary["bits_per_byte"]["value"],
            "predicted": summary["plan"]["predicted_bits_per_byte"],
            "seconds": round(seconds, 1),
            "steps": summary["steps"],
            "epochs": summary["epochs"],
            "parameters": summary["parameters"],
            "tokens_per_second": summary["tokens_per_second"],
        }


def by_transformers(folder: Path, text: str) -> float:
    """Bits per byte of `text` under the model in `folder`, as transformers computes it, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    context = model.config.max_position_embeddings
    nats, scored = 0.0, 1  # the first token is given, every other is scored once
    with torch.inference_mode():
        while scored < len(ids):
            end = min(len(ids), context + 1 if scored == 1 else scored + context // 2)
            window = torch.tensor([ids[max(0, end - context - 1) : end]])
            scores = model(window[:, :-1]).logits.log_softmax(-1)
            losses = -scores.gather(2, window[:, 1:, None]).flatten()
            nats += float(losses[-(end - scored) :].double().sum())
            scored = end
    return nats / math.log(2) / len(text.encode())


if __name__ == "__main__":
    main()
