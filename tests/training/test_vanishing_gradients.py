"""What vanishing gradients do, reproduced: an LSTM remembers one symbol over 80 steps, an Elman network does not.

The task is the simplest of those of Hochreiter and Schmidhuber (1997, section 5): the first of 80 symbols says what to
answer at the last; all between is noise. Both networks have about as many parameters and are trained by the same loop,
for as many steps, with the same optimiser. The LSTM's forget gates begin open for about as long as the task is (bias
log T: Tallec and Ollivier 2018); the Elman network's recurrent matrix begins orthogonal, which is the best that is
known for it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rung.nets.recurrent_language_model import Cell, RecurrentLM, RecurrentLMConfig
from rung.objectives.next_token import NextToken
from rung.training.contracts import LoopSettings
from rung.training.guards import GuardSettings
from rung.training.loop import train
from rung.training.optimizers import build_optimizer
from rung.training.schedule import Schedule

LENGTH, SYMBOLS, NOISE = 80, 4, 4
CHANCE = 1 / SYMBOLS
STEPS = 250


class FirstSymbol:
    """A symbol of 1..4, noise of 5..8, and the question 9, at which the symbol is to be told. Keyed by sample."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def batch(self, sample_numbers: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        rows = []
        for number in sample_numbers:
            random = np.random.default_rng((self.seed, int(number)))
            noise = random.integers(1 + SYMBOLS, 1 + SYMBOLS + NOISE, LENGTH - 2)
            rows.append([random.integers(1, 1 + SYMBOLS), *noise, 1 + SYMBOLS + NOISE])
        input_ids = torch.from_numpy(np.array(rows, dtype=np.int64))
        labels = torch.full_like(input_ids, -100)
        labels[:, -1] = input_ids[:, 0]
        return {"input_ids": input_ids, "labels": labels}


@dataclass(frozen=True)
class Learned:
    parameters: int
    accuracy: float
    reaches: list[int]  # of the looks at which there was something left to learn


def learned(cell: Cell, hidden_size: int, run_folder: Path) -> Learned:
    config = RecurrentLMConfig(
        cell=cell,
        vocab_size=2 + SYMBOLS + NOISE,
        embedding_size=16,
        hidden_size=hidden_size,
        num_hidden_layers=1,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    net = RecurrentLM(config, generator=torch.Generator().manual_seed(0))
    if cell == "lstm":
        with torch.no_grad():  # torch's order of gates: input, forget, cell, output
            net.model.layers[0].bias_ih_l0[hidden_size : 2 * hidden_size] = math.log(LENGTH)
    settings = LoopSettings(
        schedule=Schedule.warmup_flat_decay(STEPS, warmup=10, decay_fraction=0.5, final=0.0),
        batch_size=32,
        micro_batch_size=32,
        log_every=1,
        vital_signs_every=10,
        guard=GuardSettings(spike_threshold=None),
    )
    train(
        net,
        NextToken(),
        FirstSymbol(seed=0),
        build_optimizer(net, name="adam", learning_rate=0.005),
        settings,
        run_folder=run_folder,
        save_model=None,
    )
    asked = FirstSymbol(seed=1).batch(np.arange(500))
    with torch.no_grad():
        answers = net.eval()(asked["input_ids"])[:, -1].argmax(-1)
    accuracy = float((answers == asked["labels"][:, -1]).float().mean())
    return Learned(config.num_parameters, accuracy, reaches_while_learning(run_folder))


def reaches_while_learning(run_folder: Path) -> list[int]:
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    found: list[Any] = [
        line["vital_signs"]["gradient_reach"]["steps"]
        for line in lines
        if "vital_signs" in line and line["step"] > 1 and losses[line["step"]] > 0.5 * math.log(SYMBOLS)
    ]
    return found


def test_an_lstm_learns_what_lies_80_steps_back_and_an_elman_network_does_not(tmp_path: Path) -> None:
    lstm, elman = learned("lstm", 24, tmp_path / "lstm"), learned("rnn", 48, tmp_path / "rnn")
    assert elman.parameters == pytest.approx(lstm.parameters, rel=0.2)
    assert lstm.accuracy > 0.95
    assert elman.accuracy < CHANCE + 0.1
    assert median(lstm.reaches) == LENGTH - 1  # as far as there is anything to reach
    assert median(elman.reaches) < LENGTH / 8  # 7 steps, an order less
