"""The language-modelling objective: predict the token that follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rung.objectives.cross_entropy import IGNORED, fused_cross_entropy
from rung.objectives.loss import Loss


@dataclass(frozen=True)
class NextToken:
    """Cross-entropy of each label under the scores at its position, summed; `z_loss` as in `fused_cross_entropy`.

    A batch holds `input_ids` and `labels`, both (batch, time) int64, and may hold a padding `mask` (batch, time).
    Labels are already shifted: `labels[i, t]` is the token that follows `input_ids[i, t]`, or -100 where there is none.
    The metric `cross_entropy` is the sum in nats without the z-loss.
    """

    z_loss: float = 0.0

    def __call__(self, net: Any, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Return the loss of `net` (a body under `model`, a head under `lm_head`) on `batch`."""
        states = net.model(net.model.embed(batch["input_ids"]), batch.get("mask"))
        labels = batch["labels"]
        total, entropy = fused_cross_entropy(
            states.hidden.flatten(0, 1), net.lm_head.weight, labels.flatten(), self.z_loss
        )
        return Loss(total, (labels != IGNORED).sum(), {"cross_entropy": entropy})
