"""The objective of an encoder-decoder: write the target, token by token, given the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rung.objectives.cross_entropy import IGNORED, fused_cross_entropy
from rung.objectives.loss import Loss


@dataclass(frozen=True)
class SequenceToSequence:
    """Cross-entropy of each target token, summed; with `label_smoothing` s the aim is 1 - s for the token and s spread
    evenly over the vocabulary (Szegedy et al. 2016, section 7; Vaswani et al. 2017, section 5.4).

    A batch holds `source_ids` (batch, source), perhaps `source_mask` of that shape, `target_inputs` and `labels`, both
    (batch, target), labels -100 where there is no token. The metric `cross_entropy` is the sum in nats without
    smoothing.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is a share below 1, not {self.label_smoothing}")

    def __call__(self, net: Any, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Return the loss of `net` (`encode`, `decode`, `lm_head`) on `batch`."""
        mask = batch.get("source_mask")
        memory = net.encode(batch["source_ids"], mask)
        hidden = net.decode(batch["target_inputs"], memory, mask).hidden
        labels = batch["labels"].flatten()
        is_token = labels != IGNORED
        total, entropy = fused_cross_entropy(
            hidden.flatten(0, 1)[is_token],
            net.lm_head.weight,
            labels[is_token],
            bias=net.lm_head.bias,
            smoothing=self.label_smoothing,
        )
        return Loss(total, is_token.sum(), {"cross_entropy": entropy})
