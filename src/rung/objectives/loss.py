"""What an objective returns: always a sum and a count, so that any split of a batch adds up to the same number."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Loss:
    """A summed loss and how many targets it sums over; 0-dimensional tensors.

    Dividing happens once, by whoever knows the count of the *whole* batch: over micro-batches and ranks, sums of sums
    are exact where means of means are not (huggingface/transformers#34191). `metrics` are further sums over the same
    targets, detached.
    """

    total: torch.Tensor
    count: torch.Tensor
    metrics: dict[str, torch.Tensor] = field(default_factory=dict)

    def __add__(self, other: Loss) -> Loss:
        """Add two parts of one batch; both must carry the same metrics."""
        if self.metrics.keys() != other.metrics.keys():
            raise ValueError(f"losses with different metrics: {sorted(self.metrics)} and {sorted(other.metrics)}")
        metrics = {name: value + other.metrics[name] for name, value in self.metrics.items()}
        return Loss(self.total + other.total, self.count + other.count, metrics)

    def mean(self) -> torch.Tensor:
        """Return the loss per target; NaN where there is none."""
        return self.total / self.count
