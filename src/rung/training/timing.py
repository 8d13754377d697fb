"""Timing real training steps on this machine, so that a plan need not guess."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from rung.nets.body import carries_state
from rung.nets.language_models import Config, draw_language_model
from rung.objectives.carried_next_token import CarriedNextToken
from rung.objectives.next_token import NextToken
from rung.training.optimizers import OptimizerName, build_optimizer

StepTimer = Callable[[Config, int, int], float]
"""(config, sequences, context) -> seconds of one training step on that many sequences."""

_WARM_UP = 2
_TIMED = 3


def step_timer(optimizer: OptimizerName, dtype: torch.dtype, device: torch.device) -> StepTimer:
    """A timer of uncompiled steps: forward, backward, clipping and `optimizer`, computed in `dtype` on `device`."""

    def seconds(config: Config, sequences: int, context: int) -> float:
        net = draw_language_model(config, seed=0).to(device)
        net.compute_dtype = dtype
        stepper = build_optimizer(net, name=optimizer, learning_rate=1e-4, weight_decay=0.0)
        tokens = torch.randint(config.vocab_size, (sequences, context + 1), device=device)
        tokens[tokens == config.eos_token_id] = 0 if config.eos_token_id else 1  # documents are long
        batch = {"input_ids": tokens[:, :-1].contiguous(), "labels": tokens[:, 1:].contiguous()}
        rows = torch.arange(sequences, device=device)
        batch |= {"lanes": rows, "windows": torch.zeros_like(rows)}
        objective = CarriedNextToken(sequences) if carries_state(net) else NextToken()
        times = []
        for _ in range(_WARM_UP + _TIMED):
            began = time.perf_counter()
            objective(net, batch).total.backward()  # type: ignore[no-untyped-call]
            stepper.clip_grad_norm(1.0)
            stepper.step(1.0)
            stepper.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
        return median(times[_WARM_UP:])

    return seconds
