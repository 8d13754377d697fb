"""What vital signs cost: seconds of a look and of a step, and the share of training time at the default rate.

    python bench/vital_signs.py
    python bench/vital_signs.py --nets lstm,decoder --hidden 192 --layers 4 --steps 120

Each network trains by the real loop, in one process: a run in which every fourth step is looked at, whose log tells
what each look took, and pairs of runs with the default rate and without any, in turn. The networks are Rung's own on
random tokens: what is in them changes no time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rung.nets.decoder import CausalLM, DecoderConfig
from rung.nets.recurrent_language_model import RecurrentLM, RecurrentLMConfig
from rung.objectives.next_token import NextToken
from rung.training.contracts import LoopSettings
from rung.training.loop import train
from rung.training.optimizers import build_optimizer
from rung.training.precision import tune_allocator
from rung.training.schedule import Schedule

VOCABULARY = 1024


class RandomTokens:
    """The same batch of random tokens always: drawing it takes no time."""

    def __init__(self, rows: int, time_steps: int) -> None:
        tokens = torch.randint(1, VOCABULARY, (rows, time_steps + 1), generator=torch.Generator().manual_seed(0))
        self._batch = {"input_ids": tokens[:, :-1].contiguous(), "labels": tokens[:, 1:].contiguous()}

    def batch(self, sample_numbers: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """As many rows as there are numbers."""
        return {name: tensor[: len(sample_numbers)] for name, tensor in self._batch.items()}


def make(kind: str, hidden: int, layers: int, context: int) -> nn.Module:
    """A network of Rung's, by name."""
    torch.manual_seed(0)
    if kind == "decoder":
        return CausalLM(
            DecoderConfig(
                vocab_size=VOCABULARY,
                hidden_size=hidden,
                intermediate_size=hidden * 8 // 3 // 64 * 64 or 64,
                num_hidden_layers=layers,
                num_attention_heads=max(1, hidden // 64),
                num_key_value_heads=max(1, hidden // 64),
                head_dim=min(64, hidden),
                max_position_embeddings=context,
            )
        )
    return RecurrentLM(
        RecurrentLMConfig(
            cell=kind,  # type: ignore[arg-type]
            vocab_size=VOCABULARY,
            embedding_size=hidden,
            hidden_size=hidden,
            num_hidden_layers=min(layers, 2),
            eos_token_id=0,
        )
    )


def run(kind: str, options: argparse.Namespace, every: int | None, steps: int) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of a training run, and its log."""
    net = make(kind, options.hidden, options.layers, options.context)
    settings = LoopSettings(
        schedule=Schedule.warmup_flat_decay(steps, warmup=0, decay_fraction=0.5, final=0.1),
        batch_size=options.batch,
        micro_batch_size=options.batch,
        vital_signs_every=every,
    )
    optimizer = build_optimizer(net, name="adamw", learning_rate=1e-3)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        train(
            net,
            NextToken(),
            RandomTokens(options.batch, options.context),
            optimizer,
            settings,
            run_folder=Path(folder),
            save_model=None,
        )
        seconds = time.perf_counter() - began
        lines = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return seconds, [json.loads(line) for line in lines]


def measure(kind: str, options: argparse.Namespace) -> dict[str, float]:
    """The costs for one network."""
    run(kind, options, 1, 4)  # what is done once only
    ratios, looks, plain_steps = [], [], []
    for _ in range(options.rounds):
        plain, _ = run(kind, options, 0, options.steps)
        seen, log = run(kind, options, None, options.steps)
        ratios.append(seen / plain)
        plain_steps.append(plain / options.steps)
        told = [line["vital_signs"]["seconds"] for line in log if "vital_signs" in line]
        share = sum(told) / seen
        looks.append((len(told), share))
    _, log = run(kind, options, 4, 32)
    look = statistics.median(line["vital_signs"]["seconds"] for line in log if "vital_signs" in line)
    return {
        "step_ms": 1e3 * statistics.median(plain_steps),
        "look_ms": 1e3 * look,
        "looks": statistics.median(count for count, _ in looks),
        "share_of_time": statistics.median(share for _, share in looks),
        "time_with_over_without": statistics.median(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="rnn,lstm,decoder")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tune_allocator()
    print(f"{'network':<10}{'step':>9}{'look':>9}{'looks':>7}{'of time':>9}{'with / without':>16}")
    found = {}
    for kind in options.nets.split(","):
        found[kind] = one = measure(kind, options)
        print(
            f"{kind:<10}{one['step_ms']:>6.1f} ms{one['look_ms']:>6.1f} ms{one['looks']:>7.0f}"
            f"{one['share_of_time']:>9.2%}{one['time_with_over_without']:>16.3f}"
        )
    rounded = {kind: {name: round(value, 4) for name, value in one.items()} for kind, one in found.items()}
    print(json.dumps({"bench": "vital_signs", **vars(options), "nets": rounded}))


if __name__ == "__main__":
    main()
