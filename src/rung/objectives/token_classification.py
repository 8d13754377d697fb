"""The tagging objective: one class for each word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from rung.objectives.cross_entropy import IGNORED
from rung.objectives.loss import Loss


class TokenClassification:
    """Cross-entropy of the scores (batch, time, tags) that `net(batch)` returns, summed over words in float32.

    `batch["labels"]` (batch, time) int64 holds a word's tag at its first token, and -100 at all other tokens (Devlin et
    al. 2019, section 5.3). The metric `correct` is the number of words whose best score is their tag's.
    """

    def __call__(self, net: Any, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Return the loss of `net` on `batch`, and the number of its words."""
        labels = batch["labels"]
        places = labels != IGNORED
        scores, tags = net(batch)[places].float(), labels[places]
        total = F.cross_entropy(scores, tags, reduction="sum")
        return Loss(total, places.sum(), {"correct": (scores.detach().argmax(1) == tags).sum()})
