"""The masked-language-model objective: guess the tokens that were hidden (BERT, arXiv 1810.04805, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rung.objectives.cross_entropy import IGNORED, fused_cross_entropy
from rung.objectives.loss import Loss


@dataclass(frozen=True)
class MaskedToken:
    """Cross-entropy of each hidden token under the scores at its place, summed.

    A batch holds `input_ids` and `labels`, both (batch, time) int64, and may hold a padding `mask` (batch, time).
    `labels` is -100 where nothing was hidden; only the other places are put through the output matrix.
    """

    def __call__(self, net: Any, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Return the loss of `net`, a `rung.nets.masked_language_model`, on `batch`."""
        labels = batch["labels"]
        chosen = labels != IGNORED
        hidden = net.transformed(batch["input_ids"], batch.get("mask"), where=chosen)
        total, _ = fused_cross_entropy(hidden, net.output_weight, labels[chosen], bias=net.predictions.bias)
        return Loss(total, chosen.sum())
