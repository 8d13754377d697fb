"""What chat models learn and are judged by: the tokens of answers, in rows that may hold several conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rung.objectives.cross_entropy import IGNORED, fused_cross_entropy
from rung.objectives.loss import Loss

_CHUNK = 512  # positions scored at a time: with a vocabulary of 50,000, 100 MB of float32


@dataclass(frozen=True)
class AnswerTokens:
    """Cross-entropy of the labelled tokens alone, summed.

    A batch is that of `rung.data.packing`: `input_ids`, `labels`, `mask`, all (rows, time). Equal to `NextToken` on
    it, but the output matrix is applied where there is a label only, which is where its time goes: prompts are often
    most of a conversation.
    """

    def __call__(self, net: Any, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Return the loss of `net` (a body under `model`, a head under `lm_head`) on `batch`."""
        hidden, targets, _ = _labelled(net, batch)
        total, entropy = fused_cross_entropy(hidden, net.lm_head.weight, targets)
        return Loss(total, torch.tensor(len(targets), device=targets.device), {"cross_entropy": entropy})


def answer_logprobs(net: Any, batch: Mapping[str, torch.Tensor], documents: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed log-probability of each conversation's labelled tokens, and how many they are.

    Both (rows, `documents`): column k - 1 is the k-th conversation of a row, 0 and 0 where there are fewer. Gradients
    flow where they are enabled.
    """
    logprobs, row, time = answer_token_logprobs(net, batch)
    where = row * documents + batch["mask"][row, time] - 1
    size = len(batch["labels"]) * documents
    sums = logprobs.new_zeros(size).index_add(0, where, logprobs)
    counts = torch.bincount(where, minlength=size)
    return sums.view(-1, documents), counts.view(-1, documents)


def answer_token_logprobs(
    net: Any, batch: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The log-probability of each labelled token, and its row and place (time); all (n,). Gradients flow."""
    hidden, targets, (row, time) = _labelled(net, batch)
    weight = net.lm_head.weight.to(hidden.dtype)
    parts = [
        (rows @ weight.T).float().log_softmax(-1).gather(1, wanted[:, None])[:, 0]
        for rows, wanted in zip(torch.split(hidden, _CHUNK), torch.split(targets, _CHUNK), strict=True)
    ]
    return torch.cat(parts), row, time


def _labelled(
    net: Any, batch: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Hidden states (n, hidden), labels (n,) and places (row, time) of the positions that have a label."""
    states = net.model(net.model.embed(batch["input_ids"]), batch["mask"])
    row, time = (batch["labels"] != IGNORED).nonzero(as_tuple=True)
    return states.hidden[row, time], batch["labels"][row, time], (row, time)
