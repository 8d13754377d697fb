"""The classification objective: one class for each item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F

from rung.objectives.loss import Loss

ClassLoss = Literal["softmax", "ova"]


@dataclass(frozen=True)
class Classification:
    """The loss of the scores (batch, classes) that `net(batch)` returns against `batch["labels"]` (batch,) int64.

    "softmax" is cross-entropy; with `label_smoothing` s the target is 1 - s for the label and s spread evenly over all
    classes (Szegedy et al. 2016, section 7). "ova", one-vs-all, is one binary logistic regression a class, summed over
    classes (Rifkin and Klautau 2004; a loss of fastText): with many classes it may say that an item is of none.

    Summed over items in float32. The metric `correct` is the number of items whose best score is their label's.
    """

    label_smoothing: float = 0.0
    loss: ClassLoss = "softmax"

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is a share below 1, not {self.label_smoothing}")
        if self.loss == "ova" and self.label_smoothing:
            raise ValueError("label_smoothing is defined for the softmax loss only")

    def __call__(self, net: Any, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Return the loss of `net` on `batch`, and the number of its items."""
        scores, labels = net(batch).float(), batch["labels"]
        if self.loss == "softmax":
            total = F.cross_entropy(scores, labels, reduction="sum", label_smoothing=self.label_smoothing)
        else:
            targets = F.one_hot(labels, scores.shape[1]).to(scores.dtype)
            total = F.binary_cross_entropy_with_logits(scores, targets, reduction="sum")
        correct = (scores.detach().argmax(1) == labels).sum()
        count = torch.full((), len(labels), dtype=torch.int64, device=scores.device)
        return Loss(total, count, {"correct": correct})
