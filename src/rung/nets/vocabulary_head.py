"""The output matrix of an encoder-decoder: the embeddings again, and Marian's bias where there is one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class VocabularyHead(nn.Module):
    """Scores (..., vocabulary) = hidden @ weight.T + bias. The bias is a constant: it is not trained.

    `bias` is None unless a stored network brings one (Marian's `final_logits_bias`; zero in what Rung trains), so that
    an objective may fuse the product with its loss whenever `bias` is None.
    """

    bias: torch.Tensor | None

    def __init__(self, embeddings: nn.Embedding, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.weight = embeddings.weight
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Score `hidden` (..., hidden) in its own dtype."""
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        return F.linear(hidden, self.weight.to(hidden.dtype), bias)
