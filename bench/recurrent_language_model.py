"""Training speed of a word-level LSTM against the same `torch.nn.LSTM` in a bare loop, taking turns.

    python bench/recurrent_language_model.py                                 a small network on one thread
    python bench/recurrent_language_model.py --hidden 650 --layers 2         Zaremba et al. 2014, medium
    python bench/recurrent_language_model.py --precision fp32
    python bench/recurrent_language_model.py --document 40                   an end-of-text token every 40 words

Both sides train the same shape on the same words with fused AdamW, clipping at 1 and tied embeddings, and carry states
from window to window. Ours is a step of Rung's loop: lanes, objective, exact normalisation, optimiser. The bare loop is
embedding, LSTM, output matrix, `cross_entropy`; in bfloat16 it runs under autocast. Rounds alternate in this one
process; medians are compared. The bare loop knows nothing of documents, so `--document` shows what starting over costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from rung.nets.recurrent_language_model import RecurrentLM, RecurrentLMConfig
from rung.objectives.carried_next_token import CarriedNextToken
from rung.training.contracts import LoopSettings
from rung.training.distributed import alone
from rung.training.gradients import BatchGradient
from rung.training.optimizers import build_optimizer
from rung.training.precision import tune_allocator
from rung.training.schedule import Schedule

LEARNING_RATE, CLIP, EOS = 1e-3, 1.0, 0
Step = Callable[[int], float]


class Words:
    """Random words in lanes; every `document`-th is an end-of-text token (0: none)."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.lanes, self.time, self.document = arguments.lanes, arguments.time, arguments.document
        self.words = np.random.default_rng(0).integers(1, arguments.vocabulary, (self.lanes, 64 * self.time + 1))
        if self.document:
            for lane in range(self.lanes):  # lanes are not in step
                self.words[lane, lane % self.document :: self.document] = EOS

    def window(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        first = number % 64 * self.time
        words = torch.from_numpy(self.words[:, first : first + self.time + 1])
        return words[:, :-1].contiguous(), words[:, 1:].contiguous()

    def batch(self, sample_numbers: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        windows, lanes = np.divmod(sample_numbers, self.lanes)
        input_ids, labels = self.window(int(windows[0]))
        return {
            "input_ids": input_ids,
            "labels": labels,
            "lanes": torch.from_numpy(lanes),
            "windows": torch.from_numpy(windows),
        }


class Bare(nn.Module):
    """The network as one would write it down."""

    def __init__(self, vocabulary: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, vocabulary, bias=False)
        self.output.weight = self.embedding.weight

    def forward(
        self, words: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        hidden, state = self.lstm(self.embedding(words), state)
        return self.output(hidden), state


def bare_step(arguments: argparse.Namespace, words: Words) -> Step:
    """A step of the bare loop."""
    net = Bare(arguments.vocabulary, arguments.hidden, arguments.layers)
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, fused=True)
    zeros = torch.zeros(arguments.layers, arguments.lanes, arguments.hidden)
    state = (zeros, zeros)

    def step(number: int) -> float:
        nonlocal state
        input_ids, labels = words.window(number)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16"):
            scores, (h, c) = net(input_ids, state)
            loss = F.cross_entropy(scores.flatten(0, 1), labels.flatten())
        state = (h.detach(), c.detach())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return step


def our_step(arguments: argparse.Namespace, words: Words) -> Step:
    """A step of Rung's loop."""
    hidden = arguments.hidden
    config = RecurrentLMConfig("lstm", arguments.vocabulary, hidden, hidden, arguments.layers, EOS)
    net = RecurrentLM(config).train()
    net.compute_dtype = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    optimizer = build_optimizer(net, name="adamw", learning_rate=LEARNING_RATE)
    settings = LoopSettings(
        schedule=Schedule.warmup_flat_decay(10, warmup=0, decay_fraction=0.5, final=0.1),
        batch_size=words.lanes,
        micro_batch_size=words.lanes,
        gradient_clip=CLIP,
    )
    gradient = BatchGradient(
        net=net,
        objective=CarriedNextToken(words.lanes),
        batches=words,
        optimizer=optimizer,
        settings=settings,
        world=alone(),
    )

    def step(number: int) -> float:
        batch = gradient.compute(number * words.lanes, lambda: 0)
        optimizer.step(1.0)
        return batch.loss

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--lanes", type=int, default=20)
    parser.add_argument("--time", type=int, default=35)
    parser.add_argument("--document", type=int, default=0)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    words = Words(arguments)
    steps = {"rung": our_step(arguments, words), "bare": bare_step(arguments, words)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(arguments.rounds + 2):
        for name in sorted(steps, reverse=number % 2 == 0):
            began = time.perf_counter()
            steps[name](number)
            if number >= 2:
                seconds[name].append(time.perf_counter() - began)
    ratios = [theirs / ours for ours, theirs in zip(seconds["rung"], seconds["bare"], strict=True)]
    per_second = {name: words.lanes * words.time / statistics.median(times) for name, times in seconds.items()}
    for name, speed in per_second.items():
        print(f"{name}: {speed:,.0f} words/s")
    result = {
        "bench": "recurrent_language_model",
        **{name: vars(arguments)[name] for name in ("vocabulary", "hidden", "layers", "lanes", "time", "document")},
        "precision": arguments.precision,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "words_per_second": {name: round(speed) for name, speed in per_second.items()},
        "rung_over_bare": round(statistics.median(ratios), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
