"""The classification objective against its definitions, and sums that do not depend on how a batch is split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from rung.objectives.classification import Classification

SCORES = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.25, -3.0], [1.0, 1.5, 1.25], [-2.0, 0.0, 4.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 2])


def scores_of(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return batch["scores"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_equals_its_definition(smoothing: float) -> None:
    loss = Classification(label_smoothing=smoothing)(scores_of, {"scores": SCORES, "labels": LABELS})
    scores = SCORES.numpy()
    logarithms = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    targets = (1 - smoothing) * np.eye(3)[LABELS] + smoothing / 3
    assert loss.total.item() == pytest.approx(-(targets * logarithms).sum(), rel=1e-6)
    assert loss.count.item() == 4
    assert loss.metrics["correct"].item() == 3


def test_one_vs_all_equals_its_definition() -> None:
    loss = Classification(loss="ova")(scores_of, {"scores": SCORES, "labels": LABELS})
    signs = 2 * np.eye(3)[LABELS] - 1
    assert loss.total.item() == pytest.approx(np.log1p(np.exp(-signs * SCORES.numpy())).sum(), rel=1e-6)


@pytest.mark.parametrize("objective", [Classification(), Classification(0.2), Classification(loss="ova")])
def test_parts_of_a_batch_add_up_to_the_whole(objective: Classification) -> None:
    whole = objective(scores_of, {"scores": SCORES, "labels": LABELS})
    first, second = (
        objective(scores_of, {"scores": SCORES[part], "labels": LABELS[part]}) for part in (slice(1), slice(1, 4))
    )
    parts = first + second
    torch.testing.assert_close(parts.total, whole.total)
    assert parts.count == whole.count
    assert parts.metrics == whole.metrics


def test_bfloat16_scores_give_a_float32_loss() -> None:
    loss = Classification()(scores_of, {"scores": SCORES.bfloat16(), "labels": LABELS})
    assert loss.total.dtype == torch.float32


def test_meaningless_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="below 1"):
        Classification(label_smoothing=1.0)
    with pytest.raises(ValueError, match="softmax loss only"):
        Classification(label_smoothing=0.1, loss="ova")
