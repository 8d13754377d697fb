"""Questions per second that a local model scores: in batches off a shared beginning, and one by one as before.

    python bench/label_scoring.py [--threads 2] [--rounds 3]

A decoder of SmolLM2-135M's shape with random weights, a prompt of about 300 tokens with four examples, questions of
about 25 tokens, six labels of one to three tokens; alternating runs in one process, medians. "One by one" shares the
beginning's cache too, reads one question at a time, and turns all its scores into probabilities.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import torch

from rung.nets.attention import KeyValueCache
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.tasks.prompting.branching import BranchScorer

QUESTIONS = 32
LABELS = (1, 1, 1, 2, 2, 3)


def one_by_one(net: Any, start: list[int], questions: Sequence[list[int]], labels: Sequence[list[int]]) -> list[Any]:
    """Each question alone off the beginning's cache, then all labels side by side."""
    with torch.inference_mode():
        shared = KeyValueCache(net.config, 1, len(start), dtype=net.compute_dtype)
        net.model(net.model.embed(torch.tensor([start])), None, shared)
        longest, scores = max(map(len, labels)), []
        for question in questions:
            one = _fork(net, shared, 1, len(question))
            first = torch.log_softmax(net(torch.tensor([question]), None, one).double(), -1)[0, -1]
            rows = [label[:-1] + [0] * (longest - len(label)) for label in labels]
            fork = _fork(net, one, len(labels), longest - 1)
            later = torch.log_softmax(net(torch.tensor(rows), None, fork).double(), -1)
            scores.append(
                [
                    [float(first[label[0]])] + [float(later[row, i, token]) for i, token in enumerate(label[1:])]
                    for row, label in enumerate(labels)
                ]
            )
        return scores


def _fork(net: Any, cache: KeyValueCache, rows: int, room: int) -> KeyValueCache:
    end = cache.longest
    fork = KeyValueCache(net.config, rows, end + room, dtype=cache.keys.dtype)
    fork.keys[:, :, :, :end], fork.values[:, :, :, :end] = cache.keys[:, :, :, :end], cache.values[:, :, :, :end]
    fork.lengths += end
    fork.longest = end
    return fork


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = DecoderConfig(
        model_type="llama",
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=2048,
        eos_token_id=0,
    )
    net = CausalLM(config, generator=torch.Generator().manual_seed(0)).eval()
    draw = np.random.default_rng(0)
    start = draw.integers(1, 49_152, 300).tolist()
    questions = [draw.integers(1, 49_152, length).tolist() for length in draw.integers(15, 36, QUESTIONS)]
    labels = [draw.integers(1, 49_152, length).tolist() for length in LABELS]
    prompts = [start + question for question in questions]
    rates: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, dtype, ask in (
            ("one by one, fp32", torch.float32, lambda: one_by_one(net, start, questions, labels)),
            ("batches, fp32", torch.float32, lambda: BranchScorer(net).score(prompts, labels)),
            ("batches, bf16", torch.bfloat16, lambda: BranchScorer(net).score(prompts, labels)),
        ):
            net.compute_dtype = dtype
            began = time.perf_counter()
            ask()
            rates.setdefault(name, []).append(QUESTIONS / (time.perf_counter() - began))
    found = {name: round(median(values), 2) for name, values in rates.items()}
    for name, rate in found.items():
        print(f"{name:20} {rate:7.2f} questions a second, {rate / found['one by one, fp32']:.2f} times as many")
    print(json.dumps({"questions_per_second": found, "threads": options.threads, "rounds": options.rounds}))


if __name__ == "__main__":
    main()
