"""The feed-forward rung's network: the mean of n-gram embeddings, then a linear layer (fastText's model).

Joulin, Grave, Bojanowski and Mikolov 2017, "Bag of Tricks for Efficient Text Classification", section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class _MeanRows(torch.autograd.Function):
    """The mean row of each bag, and its gradient as a sparse tensor that has each row once.

    torch's own gradient has a row for each entry of each bag; adding up equal ones, by a sort of indices in torch, was
    the dearest part of a training step. One sort of (row, bag) pairs packed into integers is ten times faster, and the
    sums are then bags themselves: of the gradients of the items that hold a row.
    """

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, input_ids: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        ends = torch.cat([offsets[1:], offsets.new_full((1,), len(input_ids))])
        lengths = ends - offsets
        shares = lengths.clamp(min=1).to(weight.dtype).reciprocal_().unsqueeze(1)
        ctx.save_for_backward(input_ids, lengths, shares)
        ctx.shape = weight.shape
        return F.embedding_bag(input_ids, weight, offsets, mode="sum").mul_(shares)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        input_ids, lengths, shares = ctx.saved_tensors
        bits = len(lengths).bit_length()
        bags = np.repeat(np.arange(len(lengths)), lengths.numpy())
        entries = np.sort((input_ids.numpy() << bits) | bags)
        rows = entries >> bits
        is_first = np.ones(len(rows), np.bool_)
        np.not_equal(rows[1:], rows[:-1], out=is_first[1:])
        starts = np.flatnonzero(is_first)
        items = torch.from_numpy(entries & ((1 << bits) - 1))
        values = F.embedding_bag(items, grad * shares, torch.from_numpy(starts), mode="sum")
        indices = torch.from_numpy(rows[starts]).unsqueeze(0)
        sparse = torch.sparse_coo_tensor(indices, values, ctx.shape, is_coalesced=True, check_invariants=False)
        return sparse, None, None


class BagClassifier(nn.Module):
    """Scores of items that are bags of embedding rows.

    Embeddings start uniform in +-1/`hidden_size`, the output at zero and without a bias, as fastText's do. (A fixed
    bias at the logarithm of class shares was worse where classes are unequal: see LOG.md.)
    """

    def __init__(
        self, num_rows: int, hidden_size: int, num_classes: int, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        initial = torch.empty(num_rows, hidden_size).uniform_(-1 / hidden_size, 1 / hidden_size, generator=generator)
        self.embeddings = nn.Embedding(num_rows, hidden_size, _weight=initial)
        self.classifier = nn.Linear(hidden_size, num_classes, bias=False)
        nn.init.zeros_(self.classifier.weight)

    def freeze_rows(self, count: int) -> None:
        """Train the first `count` embeddings no further: their gradients are left out."""

        def without_first(grad: torch.Tensor) -> torch.Tensor:
            rows = grad.indices()[0]
            kept = rows >= count
            indices, values = rows[kept].unsqueeze(0), grad.values()[kept]
            return torch.sparse_coo_tensor(indices, values, grad.shape, is_coalesced=True, check_invariants=False)

        self.embeddings.weight.register_hook(without_first)  # type: ignore[no-untyped-call]

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The embedding (total, hidden) of each row number in `input_ids` (total,)."""
        return F.embedding(input_ids, self.embeddings.weight)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Scores (batch, classes) of the bags `input_ids[offsets[i]:offsets[i + 1]]`, `offsets` (batch,)."""
        means: torch.Tensor = _MeanRows.apply(  # type: ignore[no-untyped-call]
            self.embeddings.weight, batch["input_ids"], batch["offsets"]
        )
        scores: torch.Tensor = self.classifier(means)
        return scores
