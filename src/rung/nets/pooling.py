"""From the hidden states of a text to one vector. A masked position never contributes, so padding changes nothing.

Each takes `hidden` (batch, time, hidden) and `mask` (batch, time), true where a token is real (None: everywhere; every
row has a real token), and returns (batch, hidden).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from rung.nets.layers import Linear


class MaxPooling(nn.Module):
    """The largest value over time of each feature ("max-over-time", Collobert et al. 2011; Kim 2014)."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Pool (batch, time, hidden) to (batch, hidden)."""
        if mask is not None:
            hidden = hidden.masked_fill(~mask.bool().unsqueeze(-1), float("-inf"))
        return hidden.max(dim=1).values


class MeanPooling(nn.Module):
    """The mean over tokens, as sentence encoders pool (Reimers and Gurevych 2019, section 3)."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Pool (batch, time, hidden) to (batch, hidden)."""
        if mask is None:
            return hidden.mean(dim=1)
        weights = mask.to(hidden.dtype)
        weights = weights / weights.sum(dim=1, keepdim=True)
        return torch.einsum("bt,bth->bh", weights, hidden)


class AttentionPooling(nn.Module):
    """A mean weighted by a learned query: softmax over time of v . tanh(W h + b) (Yang et al. 2016, section 2.2)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = Linear(hidden_size, hidden_size)
        self.query = Linear(hidden_size, 1, bias=False)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Pool (batch, time, hidden) to (batch, hidden)."""
        scores = self.query(torch.tanh(self.dense(hidden))).squeeze(-1).float()
        if mask is not None:
            scores = scores.masked_fill(~mask.bool(), float("-inf"))
        weights = scores.softmax(dim=1).to(hidden.dtype)
        return torch.einsum("bt,bth->bh", weights, hidden)


class FirstTokenPooling(nn.Module):
    """BERT's pooler: the state of the first token, [CLS], through a dense layer and an activation.

    tanh in BERT (arXiv 1810.04805) and RoBERTa, ReLU in DistilBERT. `dropout` acts on the state before the dense layer,
    which RoBERTa's classifier does.
    """

    def __init__(
        self,
        hidden_size: int,
        activation: Callable[[torch.Tensor], torch.Tensor] = torch.tanh,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dense = Linear(hidden_size, hidden_size)
        self.activation, self.dropout = activation, dropout

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:  # noqa: ARG002 - never padding
        """Pool (batch, time, hidden) to (batch, hidden)."""
        return self.activation(self.dense(F.dropout(hidden[:, 0], self.dropout, self.training)))


class LastTokenPooling(nn.Module):
    """The state of the last real token, which in a decoder has seen the whole text (GPT, Radford et al. 2018, 3.2)."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Pool (batch, time, hidden) to (batch, hidden)."""
        if mask is None:
            return hidden[:, -1]
        last = (mask.long() * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
