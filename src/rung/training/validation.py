"""The mean loss over held-out samples."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from rung.errors import EvaluationError
from rung.training.contracts import Batches, Objective, Precision
from rung.training.distributed import World
from rung.training.gradients import autocast, to_device


@torch.no_grad()
def mean_loss(
    net: nn.Module,
    objective: Objective,
    batches: Batches,
    *,
    samples: int,
    batch_size: int,
    world: World,
    precision: Precision = "fp32",
) -> dict[str, float]:
    """`loss` and the objective's metrics per target over samples 0 .. `samples`, shared by the ranks.

    Not compiled: the backward pass, the larger part of what compilation saves, does not happen here, and a second
    compilation for evaluation mode would cost more than it gives.
    """
    was_training = net.training
    net.eval()
    sums: dict[str, torch.Tensor] = {}
    starts = range(0, samples, batch_size)
    for start in starts[world.rank :: world.size] or starts[:1]:  # a rank without work needs the metrics' names
        numbers = np.arange(start, min(start + batch_size, samples), dtype=np.int64)
        with autocast(precision, world.device):
            loss = objective(net, to_device(world.device, batches.batch(numbers)))
        weight = 1.0 if world.rank < len(starts) else 0.0
        for name, value in {"loss": loss.total, "count": loss.count, **loss.metrics}.items():
            sums[name] = sums.get(name, 0.0) + weight * value.double()
    net.train(was_training)
    names = sorted(sums)
    totals = dict(zip(names, world.sum(torch.stack([sums[name] for name in names])).tolist(), strict=True))
    count = totals.pop("count")
    if count == 0:
        raise EvaluationError("the held-out samples hold nothing to predict", hint="give more validation text")
    return {name: total / count for name, total in totals.items()}
